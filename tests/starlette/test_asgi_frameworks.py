"""The gate, wherever it closes, in each ASGI framework with its own authentication, on real uvicorn."""

import json

import litestar
import pytest
import quart
from asgi_apps import APPS
from asgi_clients import dial, eventually, last_event, signed_in
from starlette.responses import JSONResponse
from websockets.exceptions import ConnectionClosedError, InvalidStatus

TOKENS = 23  # of one answer of the loopback server


@pytest.fixture(params=APPS)
def site(request, host, chat):
    return host(APPS[request.param](chat))


@pytest.fixture
def ada(site):
    with signed_in(site, "ada") as client:
        yield client


@pytest.fixture
def ben(site):
    with signed_in(site, "ben") as client:
        yield client


@pytest.mark.parametrize("path", ["/ask", "/stream", "/background"])
def test_the_signed_in_user_pays(path, ada, pg):
    """Plain, streamed and background calls are charged to the user whom the framework has signed in."""
    assert ada.get(path).status_code == 200
    eventually(lambda: pg.get_usage("ada").period_tokens_total == TOKENS)
    assert pg.get_usage("ada").reserved_cost == 0


@pytest.mark.parametrize("path", ["/ask", "/stream", "/group"])
def test_a_gate_before_the_start_is_a_429(path, ben):
    """In the endpoint, in the first chunk and in a task group a closed gate is the 429 and never a 500."""
    answer = ben.get(path)
    assert (answer.status_code, answer.json()["code"]) == (429, "period_spend")
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["cache-control"] == "no-store"


def test_a_gate_in_mid_stream_is_one_last_event(ben):
    """After the first event a closed gate ends the stream normally, with one ``event: error``."""
    answer = ben.get("/middle")
    assert answer.status_code == 200
    assert answer.text.startswith("data: first\n\n")
    name, told = last_event(answer.text)
    assert (name, told["type"], told["code"]) == ("error", "error", "period_spend")


def test_a_gate_in_a_background_task_leaves_the_response(ben, pg):
    """A refused background task changes nothing of the response that was sent before it."""
    answer = ben.get("/background")
    assert (answer.status_code, "done" in answer.text) == (200, True)
    assert pg.get_usage("ben").period_cost == 0


def test_a_gate_before_the_handshake_denies_it(ben):
    """A closed gate before ``accept`` answers the handshake with the 429."""
    with pytest.raises(InvalidStatus) as caught, dial(ben, "/before"):
        pass
    assert caught.value.response.status_code == 429
    assert b'"code":"period_spend"' in caught.value.response.body


def test_a_gate_on_an_open_socket_closes_it(ben):
    """A closed gate after ``accept`` closes the connection with 1008 and the code as reason."""
    with dial(ben, "/after") as socket, pytest.raises(ConnectionClosedError) as caught:
        socket.recv(timeout=60)
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1008, "period_spend")


RESPONSES = {
    "starlette": lambda told: JSONResponse(told, 402),
    "fastapi": lambda told: JSONResponse(told, 402),
    "litestar": lambda told: litestar.Response(told, status_code=402),
    "quart": lambda told: quart.Response(json.dumps(told), 402, content_type="application/json"),
}


@pytest.mark.parametrize("name", APPS)
def test_an_answer_of_the_frameworks_own(name, host, chat):
    """What ``on_limit`` returns is the framework's response, before a stream and a handshake too."""
    app = APPS[name](
        chat, on_limit=lambda request, problem: RESPONSES[name.partition("-")[0]]({"own": problem["code"]})
    )
    with signed_in(host(app), "ben") as ben:
        for path in ("/ask", "/stream", "/group"):
            answer = ben.get(path)
            assert (answer.status_code, answer.json()) == (402, {"own": "period_spend"})
        with pytest.raises(InvalidStatus) as caught, dial(ben, "/before"):
            pass
    assert caught.value.response.status_code == 402


def test_nonsense_of_the_apps_own_is_no_answer(host, chat, caplog):
    """Where ``on_limit`` returns what cannot be sent, the usual answer is sent and the log says why."""
    app = APPS["starlette"](chat, on_limit=lambda request, problem: {"no": "response"})
    with signed_in(host(app), "ben") as ben:
        assert ben.get("/stream").json()["code"] == "period_spend"
    assert "on_limit returned no response" in caplog.text
