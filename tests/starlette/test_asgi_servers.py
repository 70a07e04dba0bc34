"""FastAPI behind uvicorn, and gunicorn with uvicorn's worker: users apart, clients who leave, the gate."""

import contextlib
import os
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from asgi_clients import last_event
from listening import Listening

from paygent.ledgers.sqlite import SqliteLedger
from paygent.testing.llm_server import LLMServer

HERE = Path(__file__).parent
SPENT = "ben"
ABANDONED_TOKENS = 5000  # twenty seconds of them: nobody is so slow to notice that the client has left
STOP_S_MAX = 25  # after which gunicorn would soon end its workers by force
GUNICORN = ("gunicorn", "asgi_served:app", "--log-level", "error", "-k", "uvicorn_worker.UvicornWorker")
SERVERS = {
    "uvicorn": lambda port: ("uvicorn", "asgi_served:app", "--port", str(port), "--log-level", "warning"),
    "worker": lambda port: (*GUNICORN, "-b", f"127.0.0.1:{port}", "--workers", "2"),
    "preload": lambda port: (*GUNICORN, "-b", f"127.0.0.1:{port}", "--workers", "2", "--preload"),
}
USERS = {"uvicorn": 200, "worker": 200, "preload": 40}
WAYS = ("plain", "stream", "background", "task", "thread")


@pytest.fixture(scope="module")
def slow_llm():
    with LLMServer(reply_tokens=ABANDONED_TOKENS, chunk_latency_s=0.004) as server:
        yield server


@pytest.fixture(scope="module", params=SERVERS)
def server(request, slow_llm, tmp_path_factory):
    """One server for all tests with it: its kind, process, URL and ledger; killed if it is still there."""
    folder = tmp_path_factory.mktemp("server")
    given = {
        "APP_LEDGER": str(folder / "p.db"),
        "OPENAI_BASE_URL": slow_llm.openai_base_url,
        "OPENAI_API_KEY": "any",
    }
    if request.param == "preload":
        given["APP_CALLS_BEFORE_FORK"] = "1"
    command = SERVERS[request.param]
    served = Listening(lambda port: ["-m", *command(port)], folder / "log", env=os.environ | given, cwd=HERE)
    try:
        yield request.param, served, served.until_up("/up").url, folder / "p.db"
    finally:
        served.kill()


def get(url, user=None, **options):
    headers = {"x-user": user} if user else {}
    return httpx.get(url, headers=headers, trust_env=False, timeout=60, **options)


def until(condition, timeout_s=60.0):
    """Wait for what another process is about to do."""
    began_s = time.monotonic()
    while not condition():
        assert time.monotonic() < began_s + timeout_s, "it did not happen"
        time.sleep(0.02)


def booked(path):
    """Tokens that the ledger has of each user."""
    tokens = {}
    with contextlib.closing(SqliteLedger(path)) as ledger:
        for row in ledger.events(limit=100_000):
            tokens[row.user_id] = tokens.get(row.user_id, 0) + row.input_tokens + row.output_tokens
    return tokens


def test_users_are_never_mixed(server):
    """Interleaved users, in each way of making a call, are charged for their own; nobody's is nobody's."""
    kind, _, url, path = server
    users = [f"user-{number}" for number in range(USERS[kind])]
    sizes = {user: 5 + number % 10 for number, user in enumerate(users)}
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client, ThreadPoolExecutor(25) as pool:

        def ask(number):
            user, way = users[number], WAYS[number % len(WAYS)]
            return client.get(f"/{way}?n={sizes[user]}", headers={"x-user": user}).status_code

        answers = set(pool.map(ask, range(len(users))))
    nobody = {get(f"{url}/{way}?n=5").status_code for way in WAYS}
    assert (answers, nobody) == ({200}, {200})
    early = {"early": 8} if kind == "preload" else {}
    expected = {user: 3 + size for user, size in sizes.items()} | early
    until(lambda: len(booked(path)) == len(expected))
    assert booked(path) == expected


def test_a_stream_that_is_left_is_settled_within_a_second(server):
    """A client that goes away in mid-stream pays for what was sent, and nothing stays held for him."""
    _, _, url, path = server
    with (
        httpx.Client(base_url=url, trust_env=False, headers={"x-user": "quitter"}) as client,
        client.stream("GET", "/stream", params={"n": ABANDONED_TOKENS}) as answer,
    ):
        next(answer.iter_bytes())

    def is_settled():
        found = [get(f"{url}/usage/quitter").json() for _ in range(4)]  # of each worker, most likely
        return all(usage["held"] == 0 for usage in found) and any(usage["tokens"] for usage in found)

    until(is_settled)
    until(lambda: "quitter" in booked(path))
    assert 0 < booked(path)["quitter"] < ABANDONED_TOKENS


@pytest.mark.parametrize("way", ["plain", "stream", "thread"])
def test_a_spent_plan_is_a_429(way, server):
    """A refusal in the endpoint, on a worker thread and in the first chunk is the same clean 429."""
    answer = get(f"{server[2]}/{way}", SPENT)
    assert (answer.status_code, answer.json()["code"]) == (429, "period_spend")
    assert answer.headers.get_list("content-type") == ["application/json"]


@pytest.mark.parametrize("way", ["background", "task"])
def test_a_gate_behind_the_response_leaves_it(way, server):
    """A refusal after the response changes nothing of it, and charges nothing."""
    _, _, url, path = server
    assert (get(f"{url}/{way}", SPENT).status_code, booked(path).get(SPENT)) == (200, None)


def test_a_gate_in_mid_stream(server):
    """An event stream ends with one last event; another body is cut, so that half does not look whole."""
    answer = get(f"{server[2]}/half", SPENT, params={"media": "text/event-stream"})
    assert (answer.status_code, answer.text[:4]) == (200, "half")
    assert last_event(answer.text)[0] == "error"
    with pytest.raises(httpx.RemoteProtocolError):
        get(f"{server[2]}/half", SPENT, params={"media": "text/plain"})


def test_nothing_is_held_afterwards(server):
    """After a stop in good order no lease is left in the ledger, and no journal beside it."""
    _, served, _, path = server
    served.end(STOP_S_MAX)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM leases WHERE amounts <> '[]'").fetchone() == (0,)
    assert list(path.with_name(f"{path.name}.journals").glob("*.journal")) == []
