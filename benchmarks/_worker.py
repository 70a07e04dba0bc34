"""One process of ``processes``: ``python -m benchmarks._worker calls|cap|busy|newcomers FILE AMOUNT``."""

from __future__ import annotations

import json
import sys
import time
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks._setup import ANSWER, REQUEST, USAGE, USER, Clients, paygent
from paygent import PaygentLimitExceeded, paygent_context

WARM_UP = 10
PAUSE_S = 0.02


def cap_usd(calls: int) -> float:
    """A cap that covers exactly so many of our calls."""
    nusd: int = USAGE["prompt_tokens"] * 150 + USAGE["completion_tokens"] * 600
    return calls * nusd / 1e9


def _begin_together() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


def calls(db_path: Path, amount: int) -> dict[str, Any]:
    """Time *amount* bare calls, then as many metered ones; calls a second."""
    clients = Clients(ANSWER)
    rates = {}
    with paygent(db_path=db_path), paygent_context(USER):
        ways = {"bare": clients.bare, "ours": clients.ours}
        for create in ways.values():
            for _ in range(min(WARM_UP, amount)):
                create(**REQUEST)
        _begin_together()
        for name, create in ways.items():
            start = perf_counter()
            for _ in range(amount):
                create(**REQUEST)
            rates[name] = amount / (perf_counter() - start)
    return rates


def cap(db_path: Path, amount: int) -> dict[str, Any]:
    """Call until refused: the cap covers *amount* calls of all the processes together."""
    clients = Clients(ANSWER)
    admitted = 0
    with paygent(cap_usd(amount), db_path=db_path), paygent_context(USER):
        create = clients.ours
        _begin_together()
        try:
            while admitted <= amount:
                create(**REQUEST)
                admitted += 1
        except PaygentLimitExceeded:
            pass
    return {"admitted": admitted}


def busy(db_path: Path, _amount: int) -> dict[str, Any]:
    """Call without a pause until this process is ended."""
    clients = Clients(ANSWER)
    with paygent(db_path=db_path), paygent_context(USER):
        _begin_together()
        for made in count():
            clients.ours(**REQUEST)
            if made == WARM_UP:
                print("busy", flush=True)
    return {}


def newcomers(db_path: Path, amount: int) -> dict[str, Any]:
    """The first calls of *amount* users, one after the other with pauses; seconds of each."""
    clients = Clients(ANSWER)
    times_s = []
    with paygent(db_path=db_path):
        _begin_together()
        for number in range(amount):
            with paygent_context(f"newcomer-{number}"):
                start = perf_counter()
                clients.ours(**REQUEST)
                times_s.append(perf_counter() - start)
            time.sleep(PAUSE_S)
    return {"times_s": times_s}


def main() -> None:
    """Do one task and print what came of it, as one line of JSON."""
    task, db_path, amount = sys.argv[1:]
    tasks = {"calls": calls, "cap": cap, "busy": busy, "newcomers": newcomers}
    result = tasks[task](Path(db_path), int(amount))
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
