"""How exactly many share one cap, and how seldom they ask the ledger for it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks._fleet import Virtual, by_tasks, by_threads, on_file
from benchmarks._suite import Row, Sizes, Spread, benchmark

ROOT = Path(__file__).resolve().parents[1]
CROWD = 32  # threads or tasks
PROCESSES, THREADS = 4, 8
FLEETS = (1, 4, 16, 64)
CAP = 1000
WAYS = [(exact, given) for exact in (True, False) for given in (True, False)]


class Trips(NamedTuple):
    """What a fleet asked of its ledger until 90 % of a cap were used, and how much of it was usable."""

    per_call: float
    usable: float


@benchmark("exactness")
def exactness(sizes: Sizes) -> Iterator[Row]:
    """Attempts at one cap from threads, tasks, processes; ledger trips of fleets; the p50 added in one."""
    cap, calls = min(CAP, sizes.cap_calls), min(100, sizes.cap_calls)
    is_whole = cap == CAP
    for exact, given in WAYS if is_whole else WAYS[:1]:
        yield _admitted(f"{CROWD} threads", _alone(by_threads, calls, exact, given), calls, exact, given)
        yield _admitted(f"{CROWD} tasks", _alone(by_tasks, calls, exact, given), calls, exact, given)
        name = f"{PROCESSES} processes of {THREADS} threads"
        yield _admitted(name, _together(calls, exact, given), calls, exact, given)
    for workers in FLEETS if is_whole else FLEETS[:2]:
        yield from _trip_rows(f"{workers} virtual", virtual_trips(workers, cap), workers == PROCESSES)
    yield from _trip_rows(f"{PROCESSES} real", real_trips(PROCESSES, cap), True)
    yield _added(sizes.calls)


def _admitted(who: str, seen: Counter[str], calls: int, exact: bool, given: bool) -> Row:
    how = f"max_tokens {'given' if given else 'learned'}, pre_call_estimate {'on' if exact else 'off'}"
    target = f"{calls - 1} to {calls + (not exact)}"
    note = f"{how}: of {seen.total()} attempts {seen['spent']} refused as spent, {seen['busy']} as busy"
    what = f"{who}: answered of {calls} affordable"
    return Row("exactness", what, seen["answered"], "", target, note=note)


def _alone(by: Callable[..., Counter[str]], calls: int, exact: bool, given: bool) -> Counter[str]:
    with _file() as db_path, on_file(db_path, calls, exact=exact):
        return by(4 * calls, CROWD, given=given)


def _together(calls: int, exact: bool, given: bool) -> Counter[str]:
    with (
        _file() as db_path,
        Crew(PROCESSES, "attempts", db_path, calls, calls, THREADS, exact, given) as crew,
    ):
        crew.go()
        return sum((Counter(told) for told in crew.results()), Counter())


def virtual_trips(workers: int, calls: int) -> Trips:
    """Trips of *workers* engines in one thread, each with a call of ten milliseconds after the other."""
    fleet = Virtual(workers, calls)
    fleet.spend(calls * 9 // 10)
    per_call = fleet.counted.trips / fleet.answered
    fleet.spend(2 * calls)
    return Trips(per_call, fleet.answered / calls)


def real_trips(processes: int, calls: int) -> Trips:
    """Trips of *processes* on one file, each of which makes its part of 90 % of the calls, one by one."""
    share = calls * 9 // 10 // processes
    with _file() as db_path, Crew(processes, "trips", db_path, calls, share) as crew:
        crew.go()
        crew.go()
        told = crew.results()
    per_call = sum(member["trips"] for member in told) / (share * processes)
    return Trips(per_call, sum(member["answered"] for member in told) / calls)


def _trip_rows(who: str, trips: Trips, is_target: bool) -> Iterator[Row]:
    target = "< 5" if is_target else None
    what = f"{who} workers: trips per 100 calls, to 90 %"
    yield Row("exactness", what, 100 * trips.per_call, "", target)
    yield Row("exactness", f"{who} workers: usable share of the cap", 100 * trips.usable, "%", "≥ 99 %")


def _added(rounds: int) -> Row:
    with _file() as db_path, Crew(PROCESSES, "added", db_path, rounds) as crew:
        crew.go()
        told = crew.results()
    medians = {side: Spread.of([member[side] for member in told]) for side in ("bare", "ours")}
    added = median(member["ours"] - member["bare"] for member in told)
    what = f"{PROCESSES} processes on one file: added per call, p50"
    note = "the columns hold the medians of the processes"
    return Row("exactness", what, added, "µs", "≤ 25 µs", medians["bare"], medians["ours"], note)


@contextmanager
def _file() -> Iterator[Path]:
    """A ledger file that is not there yet, in a folder that goes away."""
    with tempfile.TemporaryDirectory(prefix="paygent-bench-") as folder:
        yield Path(folder) / "ledger.db"


class Crew:
    """Processes of ``_member.py`` on one file, which begin together."""

    def __init__(self, count: int, task: str, db_path: Path, *sizes: int) -> None:
        command = [
            sys.executable,
            "-m",
            "benchmarks._member",
            task,
            str(db_path),
            *(str(int(n)) for n in sizes),
        ]
        pipe = subprocess.PIPE
        self._crew = [
            subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) for _ in range(count)
        ]

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for member in self._crew:
            try:
                member.communicate(timeout=30)
            finally:
                member.kill()

    def go(self) -> None:
        """Wait until everybody is ready, and let them begin."""
        for member in self._crew:
            self._said(member)
        for member in self._crew:
            assert member.stdin is not None
            member.stdin.write("go\n")
            member.stdin.flush()

    def results(self) -> list[Any]:
        """What each of them tells in the end."""
        return [json.loads(self._said(member)) for member in self._crew]

    def _said(self, member: subprocess.Popen[str]) -> str:
        assert member.stdout is not None
        line = member.stdout.readline()
        if not line:
            raise ChildProcessError(f"a process of the crew ended early, with {member.wait()}")
        return line
