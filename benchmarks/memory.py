"""What a user costs in memory once he has made a call."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator

from benchmarks._setup import ANSWER, MODEL, REQUEST, Clients, paygent
from benchmarks._suite import Row, Sizes, benchmark

USERS_PER_FLUSH = 500


@benchmark("memory")
def memory(sizes: Sizes) -> Iterator[Row]:
    """Bytes allocated by Python code per user, his events settled; by ``tracemalloc``."""
    response = Clients(ANSWER).bare(**REQUEST)
    with paygent() as pg:
        for number in range(10):
            pg.wrap(lambda: response, user_id=f"early-{number}", model=MODEL)
        pg.flush()
        gc.collect()
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for number in range(sizes.users):
            pg.wrap(lambda: response, user_id=f"customer-{number}", model=MODEL)
            if number % USERS_PER_FLUSH == 0:
                pg.flush()
        pg.flush()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        fault = pg.queue_stats["last_error"]
    per_user = (after - before) / sizes.users
    # Users met while the ledger is away hold no lease: they weigh less than others.
    note = f"not comparable: {fault}" if fault else None
    yield Row("memory", f"per cached user, of {sizes.users:,}", per_user, "B", "≤ 2 kB", note=note)
