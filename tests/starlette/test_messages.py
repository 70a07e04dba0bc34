"""The middleware by its ASGI messages, where no server sends the ones that matter."""

import asyncio

import pytest

from paygent import Paygent, PaygentLimitExceeded
from paygent.context import current_payer
from paygent.core.models import GuardResult
from paygent_starlette import PaygentMiddleware, current_slot

SSE = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
ZIPPED = {**SSE, "headers": [*SSE["headers"], (b"content-encoding", b"gzip")]}
FIRST = {"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True}
LAST = {"type": "http.response.body", "body": b""}
LIMIT = PaygentLimitExceeded(GuardResult(status="hard_gate"))


async def sent_by(*messages, error=None, scope=None, **options):
    """What comes out of the middleware when its app sends *messages* and then raises *error*."""
    sent = []

    async def app(scope, receive, send):
        for message in messages:
            await send(message)
        if error is not None:
            raise error

    async def send(message):
        sent.append(message)

    full = {"type": "http", "method": "GET", "headers": [], **(scope or {})}
    await PaygentMiddleware(app, **options)(full, None, send)
    return sent


async def test_the_start_of_a_stream_is_sent_with_its_first_chunk(pg):
    """Messages arrive in their order and once, the held start included."""
    assert await sent_by(SSE, FIRST, LAST) == [SSE, FIRST, LAST]


@pytest.mark.parametrize("kind", ["http.response.pathsend", "http.response.zerocopysend"])
async def test_bodies_sent_by_the_server_follow_their_start(kind, pg):
    """A file that the server sends is a body too: its start goes first, a later limit adds nothing."""
    body = {"type": kind, "path": "/etc/hostname"}
    assert await sent_by(SSE, body, error=LIMIT) == [SSE, body]


async def test_a_start_without_a_body_is_not_lost(pg):
    """An app that returns after the start alone has its start sent, as it would be without us."""
    assert await sent_by(SSE) == [SSE]


async def test_a_held_start_gives_way_to_the_refusal(pg):
    """A limit before the first chunk replaces the 200."""
    start, body = await sent_by(SSE, error=LIMIT)
    assert start["status"] == 429
    assert body["body"].startswith(b"{")


async def test_the_refusal_keeps_what_the_app_said_of_the_request(pg):
    """Cookies and the like of the start that is replaced are on the 429, what describes its body is not."""
    said = [(b"set-cookie", b"seen=1"), (b"x-request-id", b"7")]
    body = [(b"cache-control", b"public"), (b"etag", b"1")]
    start, _ = await sent_by({**SSE, "headers": [*SSE["headers"], *body, *said]}, error=LIMIT)
    headers = [(name, value) for name, value in start["headers"] if name != b"content-length"]
    assert headers[0] == (b"content-type", b"application/json")
    assert headers[-2:] == said
    assert b"etag" not in dict(headers)
    assert sum(name == b"cache-control" for name, _ in headers) == 1


async def test_an_event_stream_of_stated_length_is_cut(pg):
    """Where the app has promised a number of bytes, no event can follow them."""
    sized = {**SSE, "headers": [*SSE["headers"], (b"content-length", b"400")]}
    with pytest.raises(PaygentLimitExceeded):
        await sent_by(sized, FIRST, error=LIMIT)


async def test_a_compressed_stream_is_cut(pg):
    """No plain text can be added to a compressed event stream: the error goes on to the server."""
    with pytest.raises(PaygentLimitExceeded):
        await sent_by(ZIPPED, FIRST, error=LIMIT)


async def test_the_status_can_be_402(pg):
    """``status_code=402`` is the status of a spent plan."""
    start, _ = await sent_by(error=LIMIT, status_code=402)
    assert start["status"] == 402


@pytest.mark.parametrize("error", [None, LIMIT, ValueError("a bug")])
async def test_the_context_ends_with_the_request(error, pg):
    """However a request ends, the context around it is the one from before."""
    before = current_payer()
    try:
        await sent_by(SSE, FIRST, error=error)
    except ValueError:
        assert error is not LIMIT
    assert current_payer() is before


async def test_other_scopes_pass_untouched(pg):
    """Unknown scopes reach the app with the server's own ``receive`` and ``send``."""
    seen = []

    async def app(scope, receive, send):
        seen.append((scope, receive, send))

    scope = {"type": "webtransport"}
    await PaygentMiddleware(app)(scope, "receive", "send")
    assert seen == [({"type": "webtransport"}, "receive", "send")]


async def test_nothing_is_open_once_the_app_has_shut_down(pg):
    """Before the server hears that the app has shut down, all is settled and leased back."""
    pg.record_event("ada", cost=0.5)
    heard = []

    async def app(scope, receive, send):
        await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})

    async def send(message):
        heard.append((message["type"], pg.pending_events))

    await PaygentMiddleware(app)({"type": "lifespan"}, None, send)
    assert [kind for kind, _ in heard] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert heard[-1][1] == 0


async def test_a_close_before_accept_where_the_server_cannot_answer(pg):
    """Without the extension for denials the handshake is refused by a close, its code as the reason."""
    (message,) = await sent_by(error=LIMIT, scope={"type": "websocket"})
    assert message == {"type": "websocket.close", "code": 1008, "reason": "period_spend"}


async def test_without_init_the_first_request_does_it(tmp_path):
    """Where the app has not called ``Paygent.init()``, the first request does, with the option *paygent*."""

    async def app(scope, receive, send):
        await send(LAST)

    async def send(message):
        return None

    middleware = PaygentMiddleware(app, paygent={"ledger": f"sqlite:///{tmp_path}/own.db"})
    assert Paygent.get_instance() is None
    for _ in range(2):
        await middleware({"type": "http", "method": "GET", "headers": []}, None, send)
    pg = Paygent.get_instance()
    assert pg is not None
    pg.start_session("ada")
    pg.shutdown()
    assert (tmp_path / "own.db").exists()


async def test_requests_that_share_their_state_have_slots_of_their_own(pg):
    """Servers may hand out one state for all requests of a connection: each request sees its own user."""
    shared, both_are_in, seen = {"pool": "of the lifespan"}, asyncio.Event(), {}

    async def app(scope, receive, send):
        user = scope["user_of_test"]
        scope["state"]["paygent"].user_id = user
        if user == "ada":
            await both_are_in.wait()
        both_are_in.set()
        seen[user] = scope["state"]["paygent"].user_id, current_slot().user_id, scope["state"]["pool"]

    middleware = PaygentMiddleware(app)
    base = {"type": "http", "method": "GET", "path": "/", "headers": [], "state": shared}
    await asyncio.gather(*(middleware({**base, "user_of_test": user}, None, None) for user in ("ada", "ben")))
    assert seen == {user: (user, user, "of the lifespan") for user in ("ada", "ben")}


async def test_what_is_outside_reads_the_slot_of_its_request(pg):
    """Where a request has a state of its own, middleware around ours finds the slot in it afterwards."""
    state = {}
    await sent_by(SSE, LAST, scope={"state": state})
    assert state["paygent"].calls == 0
