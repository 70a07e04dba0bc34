"""The backend over HTTP: ingestion, lease round trips, the bootstrap, and how they grow with users."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from time import monotonic, perf_counter, perf_counter_ns, sleep
from typing import Any

from benchmarks._suite import Row, Sizes, Spread, benchmark

KEY = "pg_live_a_benchmark_chose_this_key"
BATCH = 100
CLIENTS = 4
USERS = 5000  # of whom each batch has a hundred
START_S = 60.0
MS_PER_NS = 1e-6
_HEADERS = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
_PLAN = {
    "name": "default",
    "max_spend_per_period": 1e6,
    "cost_rates": {"gpt-4o-mini": {"input": 1e-6, "output": 1e-6}},
}


class Client:
    """One kept connection; bodies are made before the clock runs."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._connection.close()

    def send(self, method: str, path: str, body: bytes = b"") -> Any:
        """Send one request, and return the JSON that is answered."""
        self._connection.request(method, "/api/v1" + path, body, _HEADERS)
        response = self._connection.getresponse()
        said = response.read()
        if response.status >= 300:
            raise RuntimeError(f"{response.status} {said[:300]!r}")
        return json.loads(said)


@contextmanager
def serving(database: str, folder: str) -> Iterator[int]:
    """``paygent serve`` on *database*; yields its port."""
    log = Path(folder) / "server.log"
    environment = {**os.environ, "HOME": folder, "PAYGENT_BOOTSTRAP_KEY": KEY}
    command = [sys.executable, "-m", "paygent.cli", "serve", "--port", "0", "--database", database]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        ends_s = monotonic() + START_S
        while (found := re.search(r"Paygent serves http://127\.0\.0\.1:(\d+)", log.read_text())) is None:
            if process.poll() is not None or monotonic() > ends_s:
                raise RuntimeError(f"the server does not start: {log.read_text()[-2000:]}")
            sleep(0.05)
        yield int(found[1])
    finally:
        process.terminate()
        process.wait(30)


@benchmark("backend")
def backend(sizes: Sizes) -> Iterator[Row]:
    """Both databases; the growth with users on PostgreSQL."""
    with tempfile.TemporaryDirectory(prefix="paygent-bench-") as folder:
        with serving(f"sqlite:///{folder}/server.db", folder) as port:
            yield from _figures("SQLite", port, sizes, "≥ 5,000 /s")
        sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
        import real_servers  # the PostgreSQL of the tests

        postgres = real_servers.postgres()
        postgres.start()
        database = postgres.new_database()
        try:
            with serving(database, folder) as port:
                yield from _figures("PostgreSQL", port, sizes, "≥ 10,000 /s")
                name = database.rpartition("/")[2]
                for users in _growing(sizes):
                    _fill(lambda sql: postgres.execute(sql, name), users)
                    yield from _growth(port, users, sizes)
        finally:
            postgres.drop_database(database)


def _trips(sizes: Sizes) -> int:
    return max(1, sizes.calls // 4)


def _growing(sizes: Sizes) -> tuple[int, ...]:
    """Up to a million users, unless this is only to show that all runs."""
    return (1_000, 30_000, 1_000_000) if sizes.users >= 1000 else (sizes.users,)


def _figures(store: str, port: int, sizes: Sizes, target: str) -> Iterator[Row]:
    with Client(port) as client:
        client.send("POST", "/config/plans", json.dumps({"plans": [_PLAN]}).encode())
        yield _ingestion(store, port, sizes, target)
        count = _trips(sizes)
        leases = _timed(lambda number: client.send("POST", "/leases", _lease(number % BATCH, number)), count)
        yield _trip(f"lease round trip, {store}", leases, "p50 ≤ 5 ms")
        sessions = _timed(lambda number: client.send("GET", f"/users/user-{number % BATCH}/session"), count)
        yield _trip(f"/session, {store}", sessions, "p50 ≤ 5 ms")


def _growth(port: int, users: int, sizes: Sizes) -> Iterator[Row]:
    with Client(port) as client:
        step = max(1, users // _trips(sizes))
        sessions = _timed(
            lambda number: client.send("GET", f"/users/grown-{number * step % users}/session"), _trips(sizes)
        )
        yield _trip(f"/session among {users:,} users, PostgreSQL", sessions, "p50 ≤ 5 ms")
        leases = _timed(
            lambda number: client.send("POST", "/leases", _lease(number * step % users, number, "grown")),
            _trips(sizes),
        )
        yield _trip(f"lease among {users:,} users, PostgreSQL", leases, "p50 ≤ 5 ms")


def _ingestion(store: str, port: int, sizes: Sizes, target: str) -> Row:
    """Several clients at once, each with its own connection; the load generator shares the machine."""
    batches = [_batch(number) for number in range(max(CLIENTS, sizes.events // BATCH))]
    with Client(port) as client:
        client.send("POST", "/events/batch", _batch(-1))
    took: list[int] = []

    def work(mine: list[bytes]) -> None:
        with Client(port) as client:
            for body in mine:
                began = perf_counter_ns()
                accepted = client.send("POST", "/events/batch", body)["accepted"]
                took.append(perf_counter_ns() - began)
                if accepted != BATCH:
                    raise RuntimeError(f"{accepted} of {BATCH} events were accepted")

    threads = [threading.Thread(target=work, args=(batches[first::CLIENTS],)) for first in range(CLIENTS)]
    began_s = perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = len(took) * BATCH / (perf_counter() - began_s)
    note = f"{CLIENTS} clients; ours: ms per batch"
    return Row("backend", f"events/s into {store} over HTTP, {BATCH} a time", rate, "/s", target, None,
               Spread.of(took, MS_PER_NS), note)  # fmt: skip


def _timed(call: Callable[[int], Any], count: int) -> list[int]:
    took = []
    for number in range(count):
        began = perf_counter_ns()
        call(number)
        took.append(perf_counter_ns() - began)
    return took


def _trip(what: str, took: list[int], target: str) -> Row:
    spread = Spread.of(took, MS_PER_NS)
    return Row("backend", what, spread.p50, "ms", target, None, spread)


def _batch(number: int) -> bytes:
    moment = datetime.now(timezone.utc).isoformat()
    users = [(number * BATCH + index * 37) % USERS for index in range(BATCH)]
    return json.dumps([_event(user, moment) for user in users], separators=(",", ":")).encode()


def _event(user: int, moment: str) -> dict[str, Any]:
    return {
        "id": str(uuid.uuid4()), "user_id": f"user-{user}", "session_id": f"session-{user}",
        "timestamp": moment, "model": "gpt-4o-mini", "input_tokens": 41, "output_tokens": 28,
        "total_tokens": 69, "tool_calls": [], "cost_tokens": 2.295e-05, "cost_tools": 0.0,
        "cost_total": 2.295e-05, "metadata": {}, "source": "auto",
        "description": None, "cost_explicit": False,
    }  # fmt: skip


def _lease(user: int, number: int, prefix: str = "user") -> bytes:
    operation = {
        "user_id": f"{prefix}-{user}", "lease_id": "a benchmark", "seq": number + 1, "begin_session": True,
        "need": {"total_spend": 1000}, "want": {"total_spend": 64_000},
    }  # fmt: skip
    return json.dumps([operation]).encode()


def _fill(execute: Callable[[str], Any], users: int) -> None:
    """Users with a month's sums, made by the database itself; what this server does with them is measured."""
    execute(
        "INSERT INTO paygent_enduser (uuid, project_id, external_user_id, name, email, metadata, "
        "sdk_enabled, grant_window, grant_nusd, contended_us, created_us) "
        "SELECT gen_random_uuid(), p.id, 'grown-' || n, '', '', '{}', true, '', 0, 0, 0 "
        f"FROM paygent_project p, generate_series(0, {users} - 1) n ON CONFLICT DO NOTHING"
    )
    month_us = (
        int(datetime.now(timezone.utc).replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp())
        * 10**6
    )
    execute(
        'INSERT INTO paygent_total (user_id, "window", scope, key, amount) '  # figures of our own
        f"SELECT id, 'p{month_us}', s, md5(s || 'p{month_us}'), 1000 FROM paygent_enduser, "
        "unnest(ARRAY['total_spend', 'model_limit:gpt-4o-mini', 'model_cost:gpt-4o-mini']) s "
        "WHERE external_user_id LIKE 'grown-%' ON CONFLICT DO NOTHING"
    )
    execute("ANALYZE paygent_enduser, paygent_total")
