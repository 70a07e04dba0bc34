"""What a plugin says where its framework is missing or too old."""

import os
import re
import subprocess
import sys
from types import ModuleType

import pytest
from project import ROOT
from test_imports import loaded

from paygent.web import needs

FRAMEWORKS = ("django", "flask", "starlette")


def test_the_least_versions_are_those_of_the_extras():
    """What ``pip`` installs with an extra and what the plugin asks for are the same."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    declared = re.findall(r'^(\w+) = \["\1>=([\d.]+)"', project, re.MULTILINE)
    assert {name: least for name, least in declared if name in FRAMEWORKS} == needs.LEAST


def importing(module, path="", before=""):
    """What a fresh interpreter says last where importing *module* fails."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {before}\nimport {module}"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(path), str(ROOT)])},
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_plugin_without_its_framework_says_what_to_install(framework):
    """Importing the plugin where the framework is missing names the extra."""
    least = needs.LEAST[framework]
    assert importing(f"paygent_{framework}", before=f"sys.modules['{framework}'] = None") == (
        f"ImportError: paygent_{framework} needs {framework} {least} or newer, and there is none: "
        f'pip install "paygent[{framework}]"'
    )


def test_a_requirement_of_the_frameworks_own_is_not_mistaken_for_it(tmp_path):
    """A framework that is there, and cannot be imported itself, says why."""
    (tmp_path / "flask").mkdir()
    (tmp_path / "flask/__init__.py").write_text("import its_own_requirement\n", encoding="utf-8")
    said = importing("paygent_flask", tmp_path)
    assert said == "ModuleNotFoundError: No module named 'its_own_requirement'"


@pytest.fixture
def starlette_is(monkeypatch):
    """Put a framework in Starlette's place that says it is of some version."""

    def be(**said):
        module = ModuleType("starlette")
        vars(module).update(said)
        monkeypatch.setitem(sys.modules, "starlette", module)

    return be


@pytest.mark.parametrize("version", ["0.45.9", "0.9", "0.45.3rc1", "0"])
def test_one_that_is_too_old_is_refused(starlette_is, version):
    """The error names the version that is there, the least one, and what to install."""
    starlette_is(__version__=version)
    with pytest.raises(ImportError) as refused:
        needs.require("starlette")
    assert str(refused.value) == (
        f"paygent_starlette needs starlette 0.46 or newer, and this is {version}: "
        'pip install "paygent[starlette]"'
    )


@pytest.mark.parametrize("version", ["0.46", "0.46.0", "0.100", "1.0rc1", "2", "unknown", "", None, (1, 0)])
def test_one_that_is_new_enough_or_says_nothing_passes(starlette_is, version):
    """The least version and later ones pass, and so does what nobody can read."""
    starlette_is(__version__=version)
    assert needs.require("starlette") is None


def test_one_without_a_version_passes(starlette_is):
    """A copy that was put into a project, or a release that tells it in another way, is not asked further."""
    starlette_is()
    assert needs.require("starlette") is None


@pytest.mark.parametrize(
    "module, before",
    [
        ("paygent", ""),
        ("paygent_django", "import django.http, paygent"),
        ("paygent_starlette", "import starlette.applications, paygent"),
    ],
)
def test_no_version_is_looked_up_in_the_environment(module, before):
    """The slow search through what is installed is no part of any import."""
    assert "importlib.metadata" not in loaded(module, before)
