"""
The matrix: every Python, and the oldest and newest of each SDK and framework.

Run ``nox``, or a part: ``nox -s sdks``. Interpreters that are not installed are left out. The daily
commands stay ``make test`` and ``make check``.
"""

from __future__ import annotations

import nox

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True

PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
SDKS = [
    "openai==1.66.0",
    "openai==2.0.0",
    "openai",
    "anthropic==0.49.0",
    "anthropic==0.125.0",
    "anthropic",
]
FRAMEWORKS = [
    "starlette==0.46.0",
    "starlette",
    "flask==2.3.0 werkzeug<3",
    "flask",
    "django==5.2",
    "django",
]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """All tests with the newest of everything."""
    session.install("-e", ".[test]")
    session.run("pytest", *session.posargs)


@nox.session(python="3.12")
@nox.parametrize("sdk", SDKS)
def sdks(session: nox.Session, sdk: str) -> None:
    """All tests but the house's, with one SDK at one version."""
    session.install("-e", ".[test]")
    session.install("--upgrade", *sdk.split())
    session.run("pytest", "--ignore=tests/house", *session.posargs)


@nox.session(python="3.12")
@nox.parametrize("framework", FRAMEWORKS)
def frameworks(session: nox.Session, framework: str) -> None:
    """All tests but the house's, with one web framework at one version."""
    session.install("-e", ".[test,django,flask]")
    session.install("--upgrade", *framework.split())
    session.run("pytest", "--ignore=tests/house", *session.posargs)


@nox.session(python="3.12")
def heavy_extras(session: nox.Session) -> None:
    """The wheel with the extras that are too large for every test run."""
    session.install("-e", ".[test]")
    session.run("pytest", "tests/house/test_packaging.py", "--every-extra", *session.posargs)


@nox.session
def check(session: nox.Session) -> None:
    """What ``make check`` does."""
    session.install("-e", ".[check]")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")
    session.run("lint-imports", "--no-logo", "--no-cache")
