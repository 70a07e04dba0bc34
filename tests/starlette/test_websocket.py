import pytest
from starlette.routing import WebSocketRoute
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect


def dial(url, user):
    return connect(url.replace("http", "ws", 1), additional_headers={"x-user": user}, proxy=None)


def test_every_turn_of_a_connection_belongs_to_its_user(serve, chat, pg):
    """Each model call of a long WebSocket connection charges the user who opened it."""

    async def endpoint(socket):
        await socket.accept()
        async for _ in socket.iter_text():
            await socket.send_text(await chat.ask())

    with dial(serve(WebSocketRoute("/", endpoint)), "ada") as socket:
        for _ in range(3):
            socket.send("hello")
            assert socket.recv(timeout=60)
    assert pg.get_usage("ada").period_tokens_total == 3 * 23


def test_a_refusal_before_the_handshake_is_a_429(serve, chat):
    """A limit met before the connection is accepted answers the handshake with the 429."""

    async def endpoint(socket):
        await chat.ask()
        await socket.accept()

    with pytest.raises(InvalidStatus) as caught, dial(serve(WebSocketRoute("/", endpoint)), "ben"):
        pass
    assert caught.value.response.status_code == 429
    assert b'"code":"period_spend"' in caught.value.response.body


def test_a_refusal_later_closes_with_its_code(serve, chat):
    """A limit met on an open connection closes it with 1008 and the stable code as reason."""

    async def endpoint(socket):
        await socket.accept()
        await socket.receive_text()
        await chat.ask()

    with dial(serve(WebSocketRoute("/", endpoint)), "ben") as socket:
        socket.send("hello")
        with pytest.raises(ConnectionClosedError) as caught:
            socket.recv(timeout=60)
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1008, "period_spend")


def test_other_messages_pass(serve, pg):
    """A connection without a model call works as without the middleware, its close code included."""

    async def endpoint(socket):
        await socket.accept(subprotocol=None, headers=[(b"x-own", b"1")])
        await socket.send_bytes(await socket.receive_bytes())
        await socket.close(4001, "bye")

    with dial(serve(WebSocketRoute("/", endpoint)), "ada") as socket:
        assert socket.response.headers["x-own"] == "1"
        socket.send(b"\x00\xff")
        assert socket.recv(timeout=60) == b"\x00\xff"
        with pytest.raises(ConnectionClosedError) as caught:
            socket.recv(timeout=60)
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4001, "bye")
