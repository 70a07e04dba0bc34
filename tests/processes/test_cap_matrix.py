"""A cap for exactly a hundred calls, four hundred attempts at once: a hundred are answered, whoever asks."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter

import pytest
from attempts import ATTEMPTS, CALLS, LATENCY_S, LONG, LONG_NUSD, attempts, capped, tokens
from fleet import HERE, Books, ask_async, async_client, environment

PROCESSES, THREADS = 4, 8
matrix = pytest.mark.parametrize(
    ("exact", "given"),
    [(True, True), (True, False), (False, True), (False, False)],
    ids=["exact-given", "exact-learned", "one_over-given", "one_over-learned"],
)


def check(seen, exact):
    """One call may end above the cap without ``pre_call_estimate``, one of everybody's; none with it."""
    assert seen.total() == ATTEMPTS
    assert CALLS - 1 <= seen["answered"] <= CALLS + (not exact)


@pytest.mark.parametrize("ledger", ["memory", "sqlite"])
@matrix
def test_threads_share_one_cap(init, ledger, exact, given):
    """Thirty-two threads get as many answers as the cap covers, at most one fewer, and all are posted."""
    pg = init(fail_open=False, **({"ledger": "memory://"} if ledger == "memory" else {}))
    pg.configure_plan("default", capped(exact=exact))
    seen = attempts(ATTEMPTS, 32, given=given)
    check(seen, exact)
    assert round(pg.get_usage("ada").period_cost * 1e9) == seen["answered"] * LONG_NUSD


@matrix
async def test_tasks_share_one_cap(init, path, exact, given):
    """Thirty-two tasks of one loop get as many answers as the cap covers, at most one fewer."""
    pg = init(fail_open=False)
    pg.configure_plan("default", capped(exact=exact))
    sdk, seen, left = async_client(LATENCY_S, LONG), Counter(), iter(range(ATTEMPTS))

    async def work():
        for _ in left:
            seen[await ask_async(sdk, **tokens(given=given))] += 1

    await asyncio.gather(*(work() for _ in range(32)))
    pg.shutdown()
    check(seen, exact)
    assert Books(path).calls == {"ada": seen["answered"]}


@pytest.fixture(scope="module")
def crowd():
    """Four processes that have the SDK loaded and wait for a case."""
    pipe = subprocess.PIPE
    command = [sys.executable, str(HERE / "attempts.py")]
    crowd = [
        subprocess.Popen(command, env=environment(), stdin=pipe, stdout=pipe, text=True)
        for _ in range(PROCESSES)
    ]
    yield crowd
    for process in crowd:
        process.communicate(timeout=60)


def say(process, line):
    process.stdin.write(line + "\n")
    process.stdin.flush()


@matrix
def test_processes_share_one_cap(crowd, path, exact, given):
    """Four processes of eight threads on one file get what the cap covers, and the file has every answer."""
    case = {"exact": exact, "given": given, "count": ATTEMPTS // PROCESSES, "threads": THREADS}
    case["init"] = {"db_path": str(path), "fail_open": False}
    for process in crowd:
        say(process, json.dumps(case))
    assert [process.stdout.readline() for process in crowd] == ['"ready"\n'] * PROCESSES
    for process in crowd:
        say(process, "go")
    seen = sum((Counter(json.loads(process.stdout.readline())) for process in crowd), Counter())
    check(seen, exact)
    books = Books(path)
    assert books.calls == {"ada": seen["answered"]}
    assert books.left == ([], [])
