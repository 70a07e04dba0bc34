"""One process of the benchmark ``exactness``: ``python -m benchmarks._member TASK FILE SIZES``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks._fleet import LONG, Counted, by_threads, on_file
from benchmarks._measure import in_turn
from benchmarks._setup import ANSWER, MODEL, REQUEST, USER, Clients, paygent
from benchmarks._suite import Spread
from paygent import PaygentLimitExceeded, paygent_context

CALL_S = 0.001  # short, so that the trips of each second do not depend on how fast the machine is


def begin_together() -> None:
    """Tell that this process is ready, and wait for the others."""
    print("ready", flush=True)
    sys.stdin.readline()


def attempts(
    db_path: Path, calls: int, attempts: int, threads: int, exact: int, given: int
) -> dict[str, Any]:
    """Attempt calls at a cap of *calls* that others attempt too."""
    with on_file(db_path, calls, exact=bool(exact)):
        begin_together()
        return dict(by_threads(attempts, threads, given=bool(given)))


def trips(db_path: Path, calls: int, share: int) -> dict[str, Any]:
    """Make *share* calls of a cap of *calls*, then what is left of it; the trips are those of the share."""
    with on_file(db_path, calls, exact=True) as pg:
        counted = Counted(pg._meter.ledger)
        begin_together()
        for _ in range(share):
            _call_until_answered(pg)
        asked, answered = counted.trips, share
        begin_together()
        try:
            while answered <= calls:
                _call(pg)
                answered += 1
        except PaygentLimitExceeded:
            return {"trips": asked, "answered": answered}
    raise AssertionError("the cap did not hold")


def _call_until_answered(pg: Any) -> None:
    """Call again where the others were in the way for longer than a caller waits: the machine may be slow."""
    while True:
        try:
            return _call(pg)
        except PaygentLimitExceeded as refusal:
            if not refusal.retryable:
                raise


def _call(pg: Any) -> None:
    def answer() -> Any:
        time.sleep(CALL_S)
        return LONG

    pg.wrap(
        answer,
        user_id=USER,
        model=MODEL,
        provider="openai",
        estimated_input_tokens=LONG["usage"]["prompt_tokens"],
        estimated_max_tokens=LONG["usage"]["completion_tokens"],
    )


def added(db_path: Path, rounds: int) -> dict[str, Any]:
    """Time bare and metered calls in turn while others do the same; medians in microseconds."""
    clients = Clients(ANSWER)
    with paygent(db_path=db_path), paygent_context(USER):
        begin_together()
        pair = in_turn(lambda: clients.bare(**REQUEST), lambda: clients.ours(**REQUEST), rounds)
    return {name: Spread.of(getattr(pair, name), 1e-3).p50 for name in ("bare", "ours")}


def main() -> None:
    """Do one task and print what came of it, as one line of JSON."""
    task, db_path, *sizes = sys.argv[1:]
    tasks: dict[str, Callable[..., dict[str, Any]]] = {"attempts": attempts, "trips": trips, "added": added}
    result = tasks[task](Path(db_path), *map(int, sizes))
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
