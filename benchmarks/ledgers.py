"""How fast the ledger takes in what was metered."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter, time_ns

from benchmarks._setup import MODEL
from benchmarks._suite import Row, Sizes, Spread, benchmark
from paygent.core.events import Event
from paygent.ledgers.sqlite import SqliteLedger
from paygent.meter.ids import EventIds

BATCH = 500  # as many as the ledger thread puts into one transaction
USERS = 100


def _events(count: int) -> list[Event]:
    new_id, now_us = EventIds(), time_ns() // 1000
    return [_event(new_id(), number, now_us + number) for number in range(count)]


def _event(event_id: str, number: int, moment_us: int) -> Event:
    user = number % USERS
    return Event(
        event_id, f"user-{user}", moment_us, "p1764547200000000", f"s1764547200000000:session-{user}",
        f"session-{user}", "openai", "chat", MODEL, MODEL, "gpt-4o-mini-2024-07-18", 41, 28, 0, 0, 0, 22_950,
        0, (), None, "auto", 0, 0, "plan", None,
    )  # fmt: skip


@benchmark("ledger")
def ledger(sizes: Sizes) -> Iterator[Row]:
    """Events a second into a new SQLite file, totals included."""
    events = _events(sizes.events)
    rates = []
    with tempfile.TemporaryDirectory(prefix="paygent-bench-") as folder:
        store = SqliteLedger(Path(folder) / "ledger.db")
        store.settle(events[:1])
        for first in range(1, len(events), BATCH):
            batch = events[first : first + BATCH]
            start = perf_counter()
            new = store.settle(batch)
            rates.append(new / (perf_counter() - start))
        store.close()
    times = Spread.of(rates)
    overall = len(rates) / sum(1 / rate for rate in rates)
    yield Row("ledger", f"events/s into SQLite, {BATCH} a time", overall, "/s", "≥ 50,000 /s", None, times)
