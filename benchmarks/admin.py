"""How long a page of the admin takes on a large database: 1 million events of 100 000 users in PostgreSQL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks._suite import Row, Sizes, Spread, benchmark

EVENTS_PER_EVENT = 20  # a page shows its worth on a ledger larger than any other benchmark writes
USERS_PER_USER = 10
TARGET = "< 300 ms"
ROOT = Path(__file__).resolve().parents[1]


@benchmark("admin")
def admin(sizes: Sizes) -> Iterator[Row]:
    """Milliseconds a page, rendered; the superuser is signed in, and each page was asked for once before."""
    sys.path.insert(0, str(ROOT / "tests"))
    import real_servers

    postgres = real_servers.durable_postgres()
    postgres.start()
    database = postgres.new_database()
    try:
        yield from _rows(database, sizes.events * EVENTS_PER_EVENT, sizes.users * USERS_PER_USER)
    finally:
        postgres.drop_database(database)


def _rows(database: str, events: int, users: int) -> Iterator[Row]:
    command = [sys.executable, "-m", "benchmarks._admin_site", database, str(events), str(users)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as site:
        assert site.stdout is not None
        for line in site.stdout:
            page = json.loads(line)
            spread = Spread.of(page["seconds"], 1000)
            target = None if page["page"].startswith("dry run") else TARGET
            yield Row("admin", page["page"], spread.p50, "ms", target, None, spread)
    if site.returncode:
        raise SystemExit(f"the site of the benchmark ended with {site.returncode}")
