import contextlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from flask_served import SPENT, create_app
from flask_world import Chat, serving
from listening import Listening

from paygent import Paygent as Core
from paygent import PlanConfig
from paygent.ledgers.sqlite import SqliteLedger
from paygent.testing.llm_server import LLMServer

HERE = Path(__file__).parent
GUNICORN = {
    "sync": ["--workers", "2"],
    "gthread": ["--threads", "8"],
    "preload": ["--workers", "2", "--threads", "4", "--preload"],
}
USERS = {"sync": 24, "gthread": 200, "preload": 40, "werkzeug": 40}
ABANDONED_TOKENS = 5000  # twenty seconds of them: nobody is so slow to notice that the client has left
STOP_S_MAX = 25  # after which gunicorn would soon end its workers by force


@pytest.fixture(scope="module")
def slow_llm():
    with LLMServer(reply_tokens=ABANDONED_TOKENS, chunk_latency_s=0.004) as server:
        yield server


@contextlib.contextmanager
def gunicorn(base_url, ledger, *options, **more):
    """Run the app on gunicorn; it is killed if it is still there in the end."""
    command = ["-m", "gunicorn", "flask_served:create_served_app()", "--log-level", "error", *options]
    env = {**os.environ, "APP_LEDGER": str(ledger), "OPENAI_BASE_URL": base_url, **more}
    served = Listening(
        lambda port: [*command, "-b", f"127.0.0.1:{port}"], ledger.with_name("log"), env=env, cwd=HERE
    )
    try:
        yield served.until_up("/leaked").url
        served.end(STOP_S_MAX)
    finally:
        served.kill()


@contextlib.contextmanager
def werkzeug(base_url, ledger):
    """Run the app on Werkzeug's threaded server in this process."""
    pg = Core.init(db_path=ledger)
    pg.configure_plan("default", PlanConfig(max_spend_per_period=10.0))
    pg.configure_plan("free", PlanConfig(max_spend_per_period=0.0))
    pg.assign_plan(SPENT, "free")
    chat = Chat(base_url)
    with chat.client, serving(create_app(chat)) as url:
        yield url
    pg.shutdown()


@pytest.fixture(scope="module", params=USERS)
def server(request, slow_llm, tmp_path_factory):
    """The app on a server of each kind: its kind, URL and ledger."""
    kind, ledger = request.param, tmp_path_factory.mktemp("server") / "p.db"
    if kind == "werkzeug":
        runs = werkzeug(slow_llm.openai_base_url, ledger)
    else:
        more = {"APP_CALLS_BEFORE_FORK": "1"} if kind == "preload" else {}
        runs = gunicorn(slow_llm.openai_base_url, ledger, *GUNICORN[kind], **more)
    with runs as url:
        yield kind, url, ledger


def get(url, user=None, **options):
    headers = {"x-user": user} if user else {}
    return httpx.get(url, headers=headers, trust_env=False, timeout=60, **options)


def booked(path, users):
    """Tokens that the ledger has of each user."""
    ledger = SqliteLedger(path)
    rows = ledger.events(limit=100_000)
    ledger.close()
    return [sum(r.input_tokens + r.output_tokens for r in rows if r.user_id == user) for user in users]


def eventually(condition, timeout_s=60.0):
    """Wait for what another process is about to do."""
    start_s = time.monotonic()
    while not condition():
        assert time.monotonic() < start_s + timeout_s, "it did not happen"
        time.sleep(0.02)


def test_users_are_never_mixed(server):
    """Interleaved users, plain, streamed and in threads, are each charged for their own; nothing leaks."""
    kind, url, path = server
    users = [f"user-{number}" for number in range(USERS[kind])]
    paths = [f"/{('plain', 'stream', 'background')[n % 3]}?n={5 + n % 10}" for n in range(len(users))]
    with ThreadPoolExecutor(25) as pool:
        answers = list(pool.map(lambda n: get(url + paths[n], users[n]).status_code, range(len(users))))
    nobody = [get(f"{url}/stream?n=5").status_code for _ in range(8)]
    leaked = [get(f"{url}/leaked").json()["leaked"] for _ in range(8)]
    assert (set(answers + nobody), set(leaked)) == ({200}, {0})
    expected = [3 + 5 + n % 10 for n in range(len(users))]
    eventually(lambda: booked(path, users) == expected)
    everybody = SqliteLedger(path)
    assert {row.user_id for row in everybody.events(limit=100_000)} <= {*users, "early"}
    everybody.close()


def test_a_stream_that_is_left_is_settled_within_a_second(server):
    """A client that goes away in mid-stream pays for what was sent, and nothing stays held for him."""
    _, url, _ = server
    with (
        httpx.Client(base_url=url, trust_env=False, headers={"x-user": "quitter"}) as client,
        client.stream("GET", "/stream", params={"n": ABANDONED_TOKENS}) as answer,
    ):
        next(answer.iter_bytes())

    def is_settled():
        found = [get(f"{url}/usage/quitter").json() for _ in range(4)]
        return all(usage["held"] == 0 for usage in found) and any(usage["tokens"] for usage in found)

    eventually(is_settled)
    assert max(get(f"{url}/usage/quitter").json()["tokens"] for _ in range(4)) < ABANDONED_TOKENS


@pytest.mark.parametrize("path", ["/plain", "/stream"])
def test_a_spent_plan_is_a_429(path, server):
    """A refusal in the view and one in the first chunk of a body are the same clean 429 on every server."""
    answer = get(server[1] + path, SPENT)
    assert (answer.status_code, answer.json()["code"]) == (429, "period_spend")
    assert answer.headers.get_list("content-type") == ["application/json"]
    assert "transfer-encoding" not in answer.headers


def test_a_started_event_stream_ends_with_an_error_event(server):
    """A refusal in mid-stream is a last event, and the body ends as bodies end."""
    answer = get(f"{server[1]}/half", SPENT, params={"type": "text/event-stream"})
    assert (answer.status_code, answer.text[:4]) == (200, "half")
    assert "event: error\ndata: {" in answer.text


def test_half_of_another_body_does_not_look_whole(server):
    """A refusal in the middle of a plain text cuts the connection."""
    with pytest.raises(httpx.RemoteProtocolError):
        get(f"{server[1]}/half", SPENT, params={"type": "text/plain"})
