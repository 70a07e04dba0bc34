"""How fast the ledgers take in what was metered, and grant what is asked for."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter, time_ns

from benchmarks._setup import MODEL
from benchmarks._suite import Row, Sizes, Spread, benchmark
from paygent import PlanConfig
from paygent.core.events import Event
from paygent.ledger import LeaseRequest, Ledger
from paygent.ledgers import open_ledger
from paygent.ledgers.sqlite import SqliteLedger
from paygent.meter.ids import event_ids

BATCH = 500  # as many as the ledger thread puts into one transaction
USERS = 100
SMALL_BATCH = 100
LEASES = 500
SHARE = 5  # a network away, a fifth of the events shows as much


def _events(count: int) -> list[Event]:
    new_id, now_us = event_ids(), time_ns() // 1000
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


@benchmark("ledgers")
def ledgers(sizes: Sizes) -> Iterator[Row]:
    """Events a second into each ledger, and how long one lease takes; the servers are on this machine."""
    with _stores() as urls:
        for name, url in urls.items():
            with contextlib.closing(open_ledger(url)) as store:
                for batch in (SMALL_BATCH, BATCH):
                    yield _intake(name, store, max(2, sizes.events // SHARE), batch)
                yield _leases(name, store, min(LEASES, sizes.events))


def _intake(name: str, store: Ledger, count: int, batch: int) -> Row:
    events = _events(count)
    store.settle(events[:1])
    start = perf_counter()
    for first in range(1, count, batch):
        store.settle(events[first : first + batch])
    rate = (count - 1) / (perf_counter() - start)
    return Row("ledgers", f"events/s into {name}, {batch} a time", rate, "/s")


def _leases(name: str, store: Ledger, count: int) -> Row:
    store.put_plan("default", PlanConfig(max_spend_per_period=1e6).model_dump_json())
    times_ms = []
    for number in range(count):
        request = LeaseRequest(f"user-{number % USERS}", "bench", number, begin_session=True)
        request.need = {"total_spend": 22_950}
        start = perf_counter()
        store.lease([request])
        times_ms.append((perf_counter() - start) * 1000)
    spread = Spread.of(times_ms)
    return Row("ledgers", f"one lease from {name}, p50", spread.p50, "ms", None, None, spread)


@contextlib.contextmanager
def _stores() -> Iterator[dict[str, str]]:
    """A URL for each kind of ledger; the servers are those of the tests, and end with this process."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    import real_servers

    postgres, redis = real_servers.durable_postgres(), real_servers.durable_redis()
    postgres.start()
    redis.start()
    home = os.environ.get("HOME", "")
    with tempfile.TemporaryDirectory(prefix="paygent-bench-") as folder:
        os.environ["HOME"] = folder  # where a Redis ledger remembers which data it knows
        try:
            yield {
                "SQLite": f"sqlite:///{folder}/ledger.db",
                "PostgreSQL": postgres.new_database(),
                "Redis": redis.url,
            }
        finally:
            os.environ["HOME"] = home
            redis.execute("FLUSHALL")
