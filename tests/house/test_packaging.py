"""The wheel, built from the project and installed into empty environments."""

import importlib.util
import os
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from project import PACKAGES, ROOT, files, package_files

CHAT_APP = ROOT / "example_apps/chat_starlette"

pytestmark = pytest.mark.slow_env

# What must run with each extra, beside which nothing but the wheel's own requirements is installed.
TRIES = {
    "": "import paygent",
    "anthropic": "import paygent, anthropic",
    "cli": "import paygent.cli, rich",
    "crewai": "import paygent.integrations, crewai",
    "demo": "import paygent.cli, paygent_starlette, openai, anthropic, uvicorn",
    "django": "import paygent_django; from django.conf import settings; settings.configure(); import ninja",
    "flask": "import paygent_flask, flask",
    "langchain": "import paygent.integrations, langchain_core",
    "openai": "import paygent, openai",
    "postgres": "import paygent, psycopg",
    "redis": "import paygent, redis",
    "celery": "import paygent.integrations.celery",
    "dramatiq": "import paygent.integrations.dramatiq",
    "rq": "import paygent.integrations.rq",
    "server": "import paygent.cli, gunicorn, prometheus_client, whitenoise, django",
    "starlette": "import paygent_starlette, starlette",
    "stripe": "import stripe",
    "yaml": "import yaml",
}
# CrewAI alone brings some 140 packages: `nox -s heavy_extras` installs it.
HEAVY = {"crewai"}
# Made of the others, or for work on Paygent itself.
COMPOSED = {"all", "check", "test"}

# As it was before the fixtures of the tests: the installer keeps its own configuration and cache.
MACHINE = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
HAS_PIP = importlib.util.find_spec("pip") is not None


def run(*command, cwd=None):
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=MACHINE,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def empty_environment(folder):
    """Make an environment that holds nothing at all, not even pip; returns its interpreter."""
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    return folder / "bin/python"


def install(interpreter, requirement):
    installer = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        interpreter,
        "install",
        "--disable-pip-version-check",
    ]
    if not HAS_PIP:  # an environment that uv made
        installer = ["uv", "pip", "install", "--python", interpreter]
    run(*installer, "--quiet", requirement)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def core(wheel, tmp_path_factory):
    """The site-packages of an environment that holds the wheel without any extra."""
    interpreter = empty_environment(tmp_path_factory.mktemp("core"))
    install(interpreter, wheel)
    return Path(
        run(interpreter, "-I", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    )


def test_the_wheel_holds_every_file_of_the_packages(wheel):
    """Templates, static files, migrations and ``py.typed`` are in the wheel, and nothing but the packages."""
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    app_files = [path.relative_to(CHAT_APP).as_posix() for path in files() if path.is_relative_to(CHAT_APP)]
    app = {f"paygent/cli/_chat_starlette/{name}" for name in app_files}
    assert packed == {path.relative_to(ROOT).as_posix() for path in package_files()} | app
    assert {f"{package}/py.typed" for package in PACKAGES} <= packed


def test_each_extra_is_tried(wheel):
    """An extra that is added to the project is added to these tests."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        declared = set(message_from_bytes(archive.read(name)).get_all("Provides-Extra", []))
    assert declared == (TRIES.keys() - {""}) | COMPOSED


def pytest_generate_tests(metafunc):
    if "extra" in metafunc.fixturenames:
        every = metafunc.config.getoption("--every-extra")
        metafunc.parametrize("extra", sorted(TRIES if every else TRIES.keys() - HEAVY))


@pytest.mark.timeout(600)
def test_the_wheel_imports_with_an_extra(extra, wheel, core, tmp_path):
    """In an environment with the wheel and one extra, everything that the extra is for imports."""
    interpreter = empty_environment(tmp_path)
    (site_packages,) = tmp_path.glob("lib/python*/site-packages")
    (site_packages / "core.pth").write_text(f"{core}\n")  # what the wheel needs, installed once
    if extra:
        install(interpreter, f"{wheel}[{extra}]")
    run(interpreter, "-I", "-c", TRIES[extra])


def test_the_wheel_brings_the_command(wheel, core):
    """The installed ``paygent`` command answers ``--help`` without any extra."""
    assert "demo" in run(core.parents[2] / "bin/paygent", "--help")
