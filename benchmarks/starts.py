"""What it costs to begin: the import, and ``init()``; each in interpreters of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks._suite import Row, Sizes, Spread, benchmark

ROOT = Path(__file__).resolve().parents[1]
# What must not be there before it is used: HTTP clients, SDKs, frameworks, the price catalogue.
HEAVY = (
    "anthropic", "crewai", "django", "flask", "genai_prices", "httpx", "httpx2", "langchain_core", "openai",
    "requests", "starlette",
)  # fmt: skip

IMPORT = """
import json, sys, time
import pydantic
class Loaded(pydantic.BaseModel):  # pydantic loads most of itself with the first model, as in both SDKs
    number: int = 0
before = set(sys.modules)
start = time.perf_counter()
import paygent
took = time.perf_counter() - start
print(json.dumps([took, sorted(set(sys.modules) - before)]))
"""

INIT = """
import json, sys, time
import paygent
before = set(sys.modules)
start = time.perf_counter()
pg = paygent.Paygent.init(db_path=sys.argv[1])
took = time.perf_counter() - start
print(json.dumps([took, sorted(set(sys.modules) - before)]))
pg.shutdown()
"""


@benchmark("import")
def import_time(sizes: Sizes) -> Iterator[Row]:
    """``import paygent`` in a process that has pydantic already, as both SDKs do."""
    with tempfile.TemporaryDirectory(prefix="paygent-bench-") as folder:
        runs = _runs(IMPORT, Path(folder), sizes.starts)
    yield from _rows("import", "import paygent, after pydantic", "≤ 30 ms", runs)


@benchmark("init")
def init_time(sizes: Sizes) -> Iterator[Row]:
    """``Paygent.init()`` on a new file, no SDK imported."""
    with tempfile.TemporaryDirectory(prefix="paygent-bench-") as folder:
        runs = _runs(INIT, Path(folder), sizes.starts)
    yield from _rows("init", "Paygent.init(), new file", "≤ 50 ms", runs)


def _runs(code: str, folder: Path, count: int) -> list[Any]:
    """What *count* interpreters report, after one that compiles the modules, as an installation does."""
    _run(code, folder, "compile")
    return [_run(code, folder, str(number)) for number in range(count)]


def _run(code: str, folder: Path, name: str) -> Any:
    """Run *code* in a fresh interpreter; seconds, and the modules that it loaded."""
    command = [sys.executable, "-c", code, str(folder / f"{name}.db")]
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(folder / "compiled")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return json.loads(done.stdout)


def _rows(name: str, what: str, target: str, runs: list[Any]) -> Iterator[Row]:
    times = Spread.of((seconds for seconds, _ in runs), 1e3)
    modules = runs[0][1]
    heavy = sorted({module.partition(".")[0] for module in modules} & set(HEAVY))
    yield Row(name, what, times.p50, "ms", target, None, times)
    note = ", ".join(heavy) or f"of {len(modules)} modules loaded"
    yield Row(name, "SDKs, HTTP clients, frameworks, catalogue loaded", len(heavy), "", "0", note=note)
