"""The backend over HTTP: ingestion, lease round trips, the bootstrap, and how they grow with users."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from time import monotonic, perf_counter, perf_counter_ns, sleep
from typing import Any, NamedTuple

import psutil

from benchmarks._suite import Row, Sizes, Spread, benchmark

KEY = "pg_live_a_benchmark_chose_this_key"
BATCH = 100
CLIENTS = 8
USERS = 5000  # of whom each batch has a hundred
MODELS = ("gpt-4o", "gpt-4o-mini", "claude-sonnet-4-5")
START_S = 60.0
MS_PER_NS = 1e-6
_HEADERS = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
_PLAN = {
    "name": "default",
    "max_spend_per_period": 1e6,
    "cost_rates": {model: {"input": 1e-6, "output": 1e-6} for model in MODELS},
}


class Served(NamedTuple):
    """A backend: its port, and the processes whose work it is."""

    store: str
    port: int
    server: psutil.Process
    database: psutil.Process | None


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
def serving(store: str, url: str, folder: str, database: int | None = None) -> Iterator[Served]:
    """``paygent serve`` on the database at *url*, whose process is *database*."""
    log = Path(folder) / "server.log"
    environment = {**os.environ, "HOME": folder, "PAYGENT_BOOTSTRAP_KEY": KEY}
    command = [sys.executable, "-m", "paygent.cli", "serve", "--port", "0", "--database", url]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        ends_s = monotonic() + START_S
        while (found := re.search(r"Paygent serves http://127\.0\.0\.1:(\d+)", log.read_text())) is None:
            if process.poll() is not None or monotonic() > ends_s:
                raise RuntimeError(f"the server does not start: {log.read_text()[-2000:]}")
            sleep(0.05)
        owner = None if database is None else psutil.Process(database)
        yield Served(store, int(found[1]), psutil.Process(process.pid), owner)
    finally:
        process.terminate()
        process.wait(30)


@benchmark("backend")
def backend(sizes: Sizes) -> Iterator[Row]:
    """Both databases; the growth with users on PostgreSQL."""
    with tempfile.TemporaryDirectory(prefix="paygent-bench-") as folder:
        with serving("SQLite", f"sqlite:///{folder}/server.db", folder) as served:
            yield from _figures(served, sizes, "≥ 5,000 /s")
        sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
        import real_servers  # a PostgreSQL from its wheel, as in the tests

        postgres = real_servers.durable_postgres()
        postgres.start()
        database = postgres.new_database()
        try:
            with serving("PostgreSQL", database, folder, postgres.pid) as served:
                yield from _figures(served, sizes, "≥ 10,000 /s")
                name = database.rpartition("/")[2]
                for users in _growing(sizes):
                    for statement in _filling(users):
                        postgres.execute(statement, name)
                    yield from _growth(served.port, users, sizes)
        finally:
            postgres.drop_database(database)


def _trips(sizes: Sizes) -> int:
    return max(1, sizes.calls // 4)


def _growing(sizes: Sizes) -> tuple[int, ...]:
    """Up to a million users, unless this is only to show that all runs."""
    return (1_000, 30_000, 1_000_000) if sizes.users >= 1000 else (sizes.users,)


def _figures(served: Served, sizes: Sizes, target: str) -> Iterator[Row]:
    with Client(served.port) as client:
        client.send("POST", "/config/plans", json.dumps({"plans": [_PLAN]}).encode())
        yield _ingestion(served, sizes, target)
        count, store = _trips(sizes), served.store
        leases = _timed(lambda number: client.send("POST", "/leases", _lease(number % BATCH, number)), count)
        yield _trip(f"lease round trip, {store}", leases, "p50 ≤ 5 ms")
        # the same operation as before: it is answered from what is stored
        again = _timed(lambda number: client.send("POST", "/leases", _lease(number % BATCH, 0)), count)
        yield _trip(f"lease sent again, {store}", again, None)
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


def _ingestion(served: Served, sizes: Sizes, target: str) -> Row:
    """Several clients at once, each with its own connection; the load generator shares the machine."""
    count = max(CLIENTS, sizes.events // BATCH)
    _post(served.port, [_batch(number) for number in range(min(count, USERS // BATCH))])  # all are known now
    batches = [_batch(number) for number in range(count)]
    before, began_s = _cpu_s(served), perf_counter()
    took = _post(served.port, batches)
    rate = count * BATCH / (perf_counter() - began_s)
    spent = {who: (now - before[who]) * 1e6 / (count * BATCH) for who, now in _cpu_s(served).items()}
    each = ", ".join(f"{who} {us:.0f}" for who, us in spent.items())
    note = (
        f"{CLIENTS} clients; ours: ms per batch. CPU an event: {each} µs; {os.cpu_count()} cores of our own "
        f"could take {(os.cpu_count() or 1) * 1e6 / max(1.0, sum(spent.values())):,.0f} /s"
    )
    return Row("backend", f"events/s into {served.store} over HTTP, {BATCH} a time", rate, "/s", target, None,
               Spread.of(took, MS_PER_NS), note)  # fmt: skip


def _post(port: int, batches: list[bytes]) -> list[int]:
    """Post *batches* by all clients at once; returns how long each took, in nanoseconds."""
    took: list[int] = []

    def work(mine: list[bytes]) -> None:
        with Client(port) as client:
            for body in mine:
                began = perf_counter_ns()
                accepted = client.send("POST", "/events/batch", body)["accepted"]
                took.append(perf_counter_ns() - began)
                if accepted != BATCH:
                    raise RuntimeError(f"{accepted} of {BATCH} events were accepted")

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(work, [batches[first::CLIENTS] for first in range(CLIENTS)]))
    return took


def _cpu_s(served: Served) -> dict[str, float]:
    """What each side has spent so far: whatever else the machine is doing, that is what the work costs."""
    sides = {"server": _family(served.server), "clients": [psutil.Process()]}
    if served.database is not None:
        sides["database"] = _family(served.database)
    spent = {}
    for who, processes in sides.items():
        times = [process.cpu_times() for process in processes]
        spent[who] = sum(one.user + one.system for one in times)
    return spent


def _family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def _timed(call: Callable[[int], Any], count: int) -> list[int]:
    took = []
    for number in range(count):
        began = perf_counter_ns()
        call(number)
        took.append(perf_counter_ns() - began)
    return took


def _trip(what: str, took: list[int], target: str | None) -> Row:
    spread = Spread.of(took, MS_PER_NS)
    return Row("backend", what, spread.p50, "ms", target, None, spread)


def _batch(number: int) -> bytes:
    moment = datetime.now(timezone.utc).isoformat()
    users = [(number * BATCH + index * 37) % USERS for index in range(BATCH)]
    return json.dumps([_event(user, moment) for user in users], separators=(",", ":")).encode()


def _event(user: int, moment: str) -> dict[str, Any]:
    event_id = uuid.uuid4()
    given, written = event_id.int % 1009, event_id.int % 499
    cost = (given + 4 * written) * 15e-8
    return {
        "id": str(event_id), "user_id": f"user-{user}", "session_id": f"session-{user}",
        "timestamp": moment, "model": MODELS[user % len(MODELS)], "input_tokens": given,
        "output_tokens": written, "total_tokens": given + written, "tool_calls": [], "cost_tokens": cost,
        "cost_tools": 0.0, "cost_total": cost, "metadata": {}, "source": "auto",
        "description": None, "cost_explicit": False,
    }  # fmt: skip


def _lease(user: int, number: int, prefix: str = "user") -> bytes:
    operation = {
        "user_id": f"{prefix}-{user}", "lease_id": "a benchmark", "seq": number + 1, "begin_session": True,
        "need": {"total_spend": 1000}, "want": {"total_spend": 64_000},
    }  # fmt: skip
    return json.dumps([operation]).encode()


def _filling(users: int) -> Iterator[str]:
    """Users with a month's sums, made by the database itself; what this server does with them is measured."""
    yield (
        "INSERT INTO paygent_enduser (uuid, project_id, external_user_id, name, email, metadata, "
        "sdk_enabled, grant_window, grant_nusd, contended_us, created_us) "
        "SELECT gen_random_uuid(), p.id, 'grown-' || n, '', '', '{}', true, '', 0, 0, 0 "
        f"FROM paygent_project p, generate_series(0, {users} - 1) n ON CONFLICT DO NOTHING"
    )
    month = datetime.now(timezone.utc).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    window = f"p{int(month.timestamp()) * 10**6}"
    yield (
        'INSERT INTO paygent_total (user_id, "window", scope, key, amount) '  # figures of our own
        f"SELECT id, '{window}', s, md5(s || '{window}'), 1000 FROM paygent_enduser, "
        "unnest(ARRAY['total_spend', 'model_limit:gpt-4o-mini', 'model_cost:gpt-4o-mini']) s "
        "WHERE external_user_id LIKE 'grown-%' ON CONFLICT DO NOTHING"
    )
    yield "ANALYZE paygent_enduser, paygent_total"  # as autovacuum would have done by then
