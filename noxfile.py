"""
The matrix: every Python, and the oldest and newest of each SDK and framework.

Run ``nox``, or a part: ``nox -s oldest``; ``nox -l`` lists them. Interpreters that are not installed are left
out. What follows ``--`` goes to pytest. The daily commands stay ``make test`` and ``make check``.
"""

from __future__ import annotations

import nox

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["tests", "oldest", "sdks", "frameworks", "flask_before_3", "crewai", "check"]

PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
# The lower bounds of pyproject.toml, as far as they go together; what the tests alone use is the newest.
OLDEST = [
    "anthropic[bedrock]==0.49.0",  # before 0.116 a Bedrock client signs with boto3
    "anyio<4.13",  # of which this Starlette uses names that later ones warn of
    "celery==5.4.0",
    "django==5.2",
    "django-ninja==1.5.0",
    "dramatiq==1.17.0",
    "flask==3.0.0",  # of Quart, which the tests serve too; see flask_before_3
    "genai-prices==0.1.13",
    "httpx==0.27.0",
    "kombu<5.6",  # Celery's transports; later ones refuse this redis
    "openai[datalib]==1.66.0",  # gevent looks at every object, and this SDK's stand-ins for those raise
    "psycopg[binary]==3.2.11",
    "pydantic==2.12.0",
    "redis==5.0.0",
    "rq==2.0.0",
    "starlette==0.46.0",
    "wrapt==1.16.0",
]
SDKS = {
    "openai-1": ["openai<2"],
    "openai-2": ["openai<3"],
    "anthropic-0": ["anthropic<1"],
}
FRAMEWORKS = {
    "django-5.2": ["django<6"],
    "django-6.0": ["django<6.1"],
    "starlette-0": ["starlette<1"],
}


def run(session: nox.Session, *tests: str, given: list[str] | None = None) -> None:
    """
    Run *tests* with the packages that are *given*, else with the newest.

    All are installed in one go, so that what depends on a package comes in a version that fits it.
    """
    session.install("--upgrade", "-e", ".[test]", *(given or []))
    session.run("pytest", *tests, *session.posargs)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """All tests with the newest of everything."""
    run(session)


@nox.session(python="3.10")
def oldest(session: nox.Session) -> None:
    """All tests with the oldest Python and the oldest of everything that Paygent plugs into."""
    # The LangChain and LangGraph that go with this OpenAI SDK lack what these ask for.
    later = [f"--ignore=tests/integrations/test_{name}.py" for name in ("langchain_real", "langgraph")]
    run(session, *later, given=OLDEST)


@nox.session(python="3.12")
@nox.parametrize("sdk", list(SDKS))
def sdks(session: nox.Session, sdk: str) -> None:
    """Where an SDK is called, with the last version before each of its big steps."""
    folders = ("engine", "instrumentation", "integrations", "starlette", "testing")
    run(session, *(f"tests/{folder}" for folder in folders), given=SDKS[sdk])


@nox.session(python="3.12")
@nox.parametrize("framework", list(FRAMEWORKS))
def frameworks(session: nox.Session, framework: str) -> None:
    """Where a framework is plugged into, with one of its versions."""
    plugins = ["starlette"] if framework.startswith("starlette") else ["django_app", "django_web"]
    run(session, "tests/web", *(f"tests/{plugin}" for plugin in plugins), given=FRAMEWORKS[framework])


@nox.session(python="3.10")
def flask_before_3(session: nox.Session) -> None:
    """The Flask plugin with the oldest Flask; Quart, which needs a later one, is left broken."""
    session.install("-e", ".[test]")
    session.install("flask==2.3.2", "werkzeug==2.3.3")
    session.run("pytest", "tests/flask_app", "tests/web", *session.posargs)


@nox.session(python="3.12")
def crewai(session: nox.Session) -> None:
    """The real CrewAI, which pins an older OpenAI SDK: the test makes an environment of its own for it."""
    run(session, "tests/integrations/test_crewai_real.py")


@nox.session(python="3.12")
def heavy_extras(session: nox.Session) -> None:
    """The wheel with the extras that are too large for every test run."""
    run(session, "tests/house/test_packaging.py", "--every-extra")


@nox.session
def check(session: nox.Session) -> None:
    """What ``make check`` does."""
    session.install("-e", ".[check]")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")
    session.run("lint-imports", "--no-logo", "--no-cache")
