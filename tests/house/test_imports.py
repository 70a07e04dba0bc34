import json
import re
import subprocess
import sys

import pytest
from project import ROOT, package_files

# Top-level names of what no import of ours may load: HTTP clients, SDKs, frameworks, stores, the catalogue.
HEAVY = {
    "aiohttp", "anthropic", "crewai", "django", "flask", "genai_prices", "httpcore", "httpcore2", "httpx",
    "httpx2", "langchain_core", "ninja", "openai", "psycopg", "redis", "requests", "rich", "sqlite3",
    "starlette", "urllib3", "uvicorn", "werkzeug",
}  # fmt: skip
# What either SDK has loaded before us: pydantic (which loads itself bit by bit) with a model built, asyncio.
SDK_LIKE = """
import asyncio, datetime, logging, pydantic
pydantic.create_model("Any", text=(str | None, ...), count=(int, pydantic.Field(default=1, ge=0)),
                      when=(datetime.datetime, ...))
"""
# Modules of the standard library that `import paygent` may add to that.
STANDARD_MAX = 12

PROBE = """
import json, sys
{before}
before = set(sys.modules)
import {module}
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def loaded(module, before=""):
    """What importing *module* loads in a fresh interpreter that has already run *before*."""
    code = PROBE.format(module=module, before=before)
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def modules_of(package):
    paths = [path.relative_to(ROOT) for path in package_files() if path.suffix == ".py"]
    names = {
        ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        for path in paths
        if path.parts[0] == package
    }
    return sorted(name for name in names if not name.endswith(".__main__"))


def test_every_module_has_its_layer():
    """Each module of ``paygent`` stands in the list of layers, so that no import escapes the contract."""
    contract = (
        (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("layers = [")[2].partition("\n]")[0]
    )
    layered = set(re.findall(r"paygent\.\w+", contract))
    modules = {".".join(name.split(".")[:2]) for name in modules_of("paygent")}
    assert modules - {"paygent", "paygent.testing"} == layered & modules


def test_import_paygent_loads_nothing_heavy():
    """``import paygent`` loads no HTTP client, SDK, framework, database driver or price catalogue."""
    assert {name.partition(".")[0] for name in loaded("paygent")} & HEAVY == set()


def test_import_paygent_loads_nothing_from_others_but_wrapt():
    """Where an SDK has loaded pydantic, ``import paygent`` loads wrapt and no other package."""
    packages = {name.partition(".")[0] for name in loaded("paygent", SDK_LIKE)}
    assert packages - {"paygent", "wrapt", "pydantic"} <= sys.stdlib_module_names


def test_import_paygent_loads_little_of_the_standard_library():
    """Where an SDK has loaded pydantic, ``import paygent`` adds few modules of the standard library."""
    added = [
        name for name in loaded("paygent", SDK_LIKE) if name.partition(".")[0] in sys.stdlib_module_names
    ]
    assert len(added) <= STANDARD_MAX, added


@pytest.mark.parametrize(
    "package", ["paygent.core", "paygent.context", "paygent.instrumentation", "paygent.meter"]
)
def test_the_engine_loads_no_sdk(package):
    """The engine and the instrumentation import without any SDK or framework, module by module."""
    names = [name for name in modules_of("paygent") if name == package or name.startswith(f"{package}.")]
    assert names
    assert {name.partition(".")[0] for name in loaded(", ".join(names))} & HEAVY == set()
