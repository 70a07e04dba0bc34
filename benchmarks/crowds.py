"""Many callers at once: threads of one process, and processes on one file."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks._setup import ANSWER, REQUEST, USER, Clients, paygent
from benchmarks._suite import Row, Sizes, Spread, benchmark
from paygent import paygent_context

TURNS = 8
ROOT = Path(__file__).resolve().parents[1]


@benchmark("threads")
def threads(sizes: Sizes) -> Iterator[Row]:
    """Calls a second of all threads together, each thread for a user of its own, bare and metered in turn."""
    clients = Clients(ANSWER)
    each = max(1, sizes.calls_per_thread // TURNS)
    rates: dict[str, list[float]] = {"bare": [], "ours": []}
    with paygent():
        for create in (clients.bare, clients.ours):
            _together(create, sizes.threads, each)
        for _ in range(TURNS):
            rates["bare"].append(_together(clients.bare, sizes.threads, each))
            rates["ours"].append(_together(clients.ours, sizes.threads, each))
    yield _rate_row("threads", f"{sizes.threads} threads", rates)


def _rate_row(name: str, who: str, rates: dict[str, list[float]]) -> Row:
    bare, ours = Spread.of(rates["bare"]), Spread.of(rates["ours"])
    added_us = (1 / ours.p50 - 1 / bare.p50) * 1e6
    note = f"{added_us:.0f} µs added per call, of all that run together"
    return Row(name, f"{who}: metered calls/s", ours.p50, "/s", None, bare, ours, note)


def _together(create: Callable[..., Any], count: int, calls: int) -> float:
    """Calls a second of *count* threads that start together."""
    ready = threading.Barrier(count + 1)

    def work(user_id: str) -> None:
        with paygent_context(user_id):
            ready.wait()
            for _ in range(calls):
                create(**REQUEST)

    crowd = [threading.Thread(target=work, args=(f"user-{number}",)) for number in range(count)]
    for thread in crowd:
        thread.start()
    ready.wait()
    start = perf_counter()
    for thread in crowd:
        thread.join()
    return count * calls / (perf_counter() - start)


@benchmark("processes")
def processes(sizes: Sizes) -> Iterator[Row]:
    """Processes that share one file and one user: calls a second, and how exactly they share his cap."""
    with tempfile.TemporaryDirectory(prefix="paygent-bench-") as folder:
        results = _crowd(sizes.processes, "calls", Path(folder) / "calls.db", sizes.calls_per_process)
        sums = {side: [sum(result[side] for result in results)] for side in ("bare", "ours")}
        yield _rate_row("processes", f"{sizes.processes} processes", sums)
        db_path = Path(folder) / "cap.db"
        admitted = sum(
            result["admitted"] for result in _crowd(sizes.processes, "cap", db_path, sizes.cap_calls)
        )
        what = f"{sizes.processes} processes: share of a user's cap that was spent"
        share = 100 * _spent_share(db_path, sizes.cap_calls)
        yield Row("processes", what, share, "%", "99 to 100 %", note=f"{admitted} calls admitted")
        yield _beside_row(Path(folder) / "beside.db", sizes.newcomers)


def _beside_row(db_path: Path, newcomers: int) -> Row:
    """First calls, which ask the ledger, while another process keeps its interpreter and the file busy."""
    with _worker("busy", db_path, 0) as busy:
        try:
            _go([busy])
            _said(busy)
            (result,) = _crowd(1, "newcomers", db_path, newcomers)
        finally:
            busy.kill()  # nothing else ends it
    first = Spread.of(result["times_s"], 1000)
    what = "first calls beside a busy process: p99"
    note = "of users new to this process; the other one calls without pause"
    return Row("processes", what, first.p99, "ms", None, None, first, note)


def _crowd(count: int, task: str, db_path: Path, amount: int) -> list[dict[str, Any]]:
    """Start *count* workers on one file, let them begin together, and read what each reports."""
    crowd = [_worker(task, db_path, amount) for _ in range(count)]
    _go(crowd)
    results = [json.loads(_said(worker)) for worker in crowd]
    for worker in crowd:
        worker.communicate(timeout=30)
    return results


def _worker(task: str, db_path: Path, amount: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks._worker", task, str(db_path), str(amount)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _go(crowd: list[subprocess.Popen[str]]) -> None:
    """Once all are ready, let them begin."""
    for worker in crowd:
        _said(worker)
    for worker in crowd:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()


def _said(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    line = worker.stdout.readline()
    if not line:
        raise ChildProcessError(f"a worker ended early, with {worker.wait()}")
    return line


def _spent_share(db_path: Path, cap_calls: int) -> float:
    from benchmarks._worker import cap_usd

    with paygent(cap_usd(cap_calls), db_path=db_path) as pg:
        return pg.get_usage(USER).period_cost / cap_usd(cap_calls)
