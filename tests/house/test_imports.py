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
# Modules of any kind that `import paygent` loads beside pydantic, our own included.
MODULES_MAX = 60

PROBE = """
import json, sys
import {before}
before = set(sys.modules)
import {module}
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def loaded(module, before="sys"):
    """What importing *module* loads in a fresh interpreter that has already imported *before*."""
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


def test_import_paygent_adds_few_modules():
    """Once pydantic is loaded, ``import paygent`` adds a bounded number of modules."""
    before = "pydantic, pydantic.functional_serializers, pydantic.functional_validators, asyncio, logging"
    added = loaded("paygent", before)
    assert len(added) <= MODULES_MAX, added


@pytest.mark.parametrize(
    "package", ["paygent.core", "paygent.context", "paygent.instrumentation", "paygent.meter"]
)
def test_the_engine_loads_no_sdk(package):
    """The engine and the instrumentation import without any SDK or framework, module by module."""
    names = [name for name in modules_of("paygent") if name == package or name.startswith(f"{package}.")]
    assert names
    assert {name.partition(".")[0] for name in loaded(", ".join(names))} & HEAVY == set()
