import asyncio
import json
import threading
import time

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from paygent import PaygentUnavailable
from paygent_starlette import Offer, PaygentMiddleware

BEN = {"x-user": "ben"}
ADA = {"x-user": "ada"}


def get(url, **options):
    return httpx.get(url, timeout=60, trust_env=False, **options)


def eventually(condition, timeout_s=60.0):
    """Wait for what another thread is about to do."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def sse(parts):
    return StreamingResponse(parts, media_type="text/event-stream")


# --- who pays ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["async", "sync", "stream", "background"])
def test_a_call_belongs_to_the_user_of_its_request(kind, serve, chat, pg):
    """Endpoints, sync and async, streamed bodies and background tasks charge the user of the request."""

    async def asynchronous(request):
        return PlainTextResponse(await chat.ask())

    def synchronous(request):
        return PlainTextResponse(chat.ask_sync())

    async def stream(request):
        return sse(chat.stream())

    async def background(request):
        return PlainTextResponse("later", background=BackgroundTask(chat.ask))

    endpoint = {"async": asynchronous, "sync": synchronous, "stream": stream, "background": background}[kind]
    answer = get(serve(Route("/", endpoint)), headers=ADA)
    assert answer.status_code == 200
    eventually(lambda: pg.get_usage("ada").period_tokens_total == 23)


def test_the_signed_in_user_is_the_default(serve, chat, pg):
    """Without ``get_user_id`` the user of ``AuthenticationMiddleware`` pays."""

    class Everybody(AuthenticationBackend):
        async def authenticate(self, conn):
            return AuthCredentials(), SimpleUser("ada")

    async def endpoint(request):
        return PlainTextResponse(await chat.ask())

    outside = [Middleware(AuthenticationMiddleware, backend=Everybody())]
    get(serve(Route("/", endpoint), outside=outside, get_user_id=None))
    assert pg.get_usage("ada").period_tokens_total == 23


def test_an_async_resolver_is_awaited(serve, chat, pg):
    """An async ``get_user_id`` is awaited when the request begins."""

    async def find(request):
        await asyncio.sleep(0)
        return request.headers["x-user"]

    async def endpoint(request):
        return PlainTextResponse(await chat.ask())

    get(serve(Route("/", endpoint), get_user_id=find), headers=ADA)
    assert pg.get_usage("ada").period_tokens_total == 23


def test_a_user_found_late_pays(serve, chat, pg):
    """Code that authenticates after all middleware sets ``request.state.paygent.user_id``."""

    async def endpoint(request):
        request.state.paygent.user_id = "ada"
        return PlainTextResponse(await chat.ask())

    get(serve(Route("/", endpoint)))
    assert pg.get_usage("ada").period_tokens_total == 23


def test_the_user_is_not_looked_up_without_a_call(serve, pg):
    """A request that calls no model never asks who its user is."""
    asked = []

    async def endpoint(request):
        return PlainTextResponse("no model here")

    get(serve(Route("/", endpoint), get_user_id=asked.append))
    assert asked == []


def test_a_failing_resolver_is_logged_and_harms_nobody(serve, chat, pg, caplog):
    """An error in ``get_user_id`` is logged, and the call passes as nobody's."""

    def find(request):
        raise LookupError("no such session")

    async def endpoint(request):
        return PlainTextResponse(await chat.ask())

    assert get(serve(Route("/", endpoint), get_user_id=find)).status_code == 200
    assert "get_user_id failed" in caplog.text


def test_nothing_leaks_to_the_next_request(serve, chat, pg):
    """On one kept-alive connection, a request without a user is not charged to the one before it."""

    async def endpoint(request):
        return PlainTextResponse(await chat.ask())

    with httpx.Client(base_url=serve(Route("/", endpoint)), trust_env=False) as client:
        client.get("/", headers=ADA)
        before = pg.get_usage("ada").period_tokens_total
        client.get("/")
    assert pg.get_usage("ada").period_tokens_total == before == 23


# --- refusals ---------------------------------------------------------------------------------------------


def test_a_spent_plan_is_a_429(serve, chat):
    """A refused call becomes the 429 with its upgrade, when the endpoint lets it through."""

    async def endpoint(request):
        return PlainTextResponse(await chat.ask())

    url = serve(Route("/", endpoint), upgrade_url="/up?from={plan}", offers={"free": Offer("pro")})
    answer = get(url, headers=BEN)
    problem = answer.json()
    assert answer.status_code == 429
    assert (problem["code"], problem["plan"]["name"]) == ("period_spend", "free")
    assert problem["upgrade"]["url"] == "/up?from=free"
    assert answer.headers["x-should-retry"] == "false"


def test_a_browser_gets_a_page(serve, chat):
    """The same refusal is a page where a browser opens the address."""

    async def endpoint(request):
        return PlainTextResponse(await chat.ask())

    accept = {"accept": "text/html,*/*;q=0.8", "sec-fetch-dest": "document"}
    answer = get(serve(Route("/", endpoint)), headers={**BEN, **accept})
    assert answer.status_code == 429
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "You have used all of your Free plan." in answer.text


def test_a_head_request_gets_no_body(serve, chat):
    """A refused HEAD request has the headers of the 429 and no body."""

    async def endpoint(request):
        return PlainTextResponse(await chat.ask())

    answer = httpx.head(serve(Route("/", endpoint)), headers=BEN, trust_env=False)
    assert (answer.status_code, answer.content) == (429, b"")


def test_a_gate_in_the_first_chunk_is_a_clean_429(serve, chat):
    """A limit met by the generator of a stream is a 429: the 200 had not been sent."""

    async def endpoint(request):
        return sse(chat.stream())

    answer = get(serve(Route("/", endpoint)), headers=BEN)
    assert answer.status_code == 429
    assert answer.json()["code"] == "period_spend"


def test_a_started_event_stream_ends_with_an_error_event(serve, chat):
    """A limit met after the first event is one last ``event: error``, and the body ends normally."""

    async def parts():
        yield "data: first\n\n"
        await chat.ask()

    async def endpoint(request):
        return sse(parts())

    answer = get(serve(Route("/", endpoint)), headers=BEN)
    assert answer.status_code == 200
    first, last = (part for part in answer.text.split("\n\n") if part.strip())
    name, data = last.strip().split("\n")
    assert (first, name) == ("data: first", "event: error")
    told = json.loads(data.removeprefix("data: "))
    assert (told["type"], told["code"]) == ("error", "period_spend")


def test_a_started_body_of_another_kind_is_cut(serve, chat):
    """Half of a plain text must not look whole: its connection is cut."""

    async def parts():
        yield "half of it"
        await chat.ask()

    async def endpoint(request):
        return StreamingResponse(parts(), media_type="text/plain")

    with pytest.raises(httpx.RemoteProtocolError):
        get(serve(Route("/", endpoint)), headers=BEN)


def test_a_refusal_after_the_response_sends_nothing(serve, chat, caplog):
    """A background task that is refused changes nothing of the response; the log says so."""

    async def endpoint(request):
        return PlainTextResponse("done", background=BackgroundTask(chat.ask))

    assert get(serve(Route("/", endpoint)), headers=BEN).text == "done"
    eventually(lambda: "after the response was complete" in caplog.text)


def test_a_refusal_within_a_mounted_app_is_said_once(serve, chat, caplog):
    """A mounted app raises what it has answered: that is no limit behind the response, and logs nothing."""

    async def endpoint(request):
        return PlainTextResponse(await chat.ask())

    mounted = Starlette(routes=[Route("/ask", endpoint)])
    answer = get(f"{serve(Mount('/sub', mounted))}/sub/ask", headers=BEN)
    assert (answer.status_code, answer.json()["code"]) == (429, "period_spend")
    assert "after the response was complete" not in caplog.text


def test_a_refusal_within_a_task_group_is_found(serve, chat):
    """Task groups wrap the refusal in an exception group; it is a 429 all the same."""

    async def endpoint(request):
        async with anyio.create_task_group() as group:
            group.start_soon(chat.ask)
            group.start_soon(anyio.sleep, 5)
        return PlainTextResponse("not reached")

    assert get(serve(Route("/", endpoint)), headers=BEN).status_code == 429


def test_an_unavailable_ledger_is_a_503(serve, pg):
    """``PaygentUnavailable`` is answered with 503 and never with 429."""

    async def endpoint(request):
        raise PaygentUnavailable("no ledger")

    answer = get(serve(Route("/", endpoint)))
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")


def test_an_error_of_the_app_stays_the_apps(serve, pg):
    """Another error before the first chunk of a stream is the app's own 500, not half a 200."""

    async def parts():
        raise ValueError("a bug")
        yield ""

    async def endpoint(request):
        return sse(parts())

    assert get(serve(Route("/", endpoint))).status_code == 500


def test_installed_twice_it_acts_once(serve, chat, pg):
    """The inner one of two middlewares leaves everything to the outer one."""

    async def endpoint(request):
        return PlainTextResponse(await chat.ask())

    outer = Middleware(PaygentMiddleware, get_user_id=lambda request: "ada")
    get(serve(Route("/", endpoint), outside=[outer]), headers=BEN)
    assert pg.get_usage("ada").period_tokens_total == 23


# --- everything else stays as it is -----------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/file", "/empty", "/nothing", "/text"])
def test_other_responses_are_untouched(method, path, serve, pg, tmp_path):
    """Files, empty bodies, 204 and HEAD are sent byte for byte as without the middleware."""
    (tmp_path / "file.bin").write_bytes(bytes(range(256)) * 1000)
    routes = [
        Route("/file", lambda request: FileResponse(tmp_path / "file.bin")),
        Route("/empty", lambda request: Response(b"")),
        Route("/nothing", lambda request: Response(status_code=204)),
        Route("/text", lambda request: PlainTextResponse("text", headers={"x-own": "1"})),
    ]
    with_it = httpx.request(method, serve(*routes) + path, trust_env=False)
    without = httpx.request(method, serve(*routes, bare=True) + path, trust_env=False)
    keep = {name: value for name, value in without.headers.items() if name != "date"}
    assert (with_it.status_code, with_it.content) == (without.status_code, without.content)
    assert {name: value for name, value in with_it.headers.items() if name != "date"} == keep


def test_a_slow_first_chunk_does_not_keep_the_headers(serve, pg):
    """The start of a stream is held for ``defer_start_s`` at most; then the client gets its headers."""
    go_on = threading.Event()

    def parts():
        go_on.wait(60)
        yield "data: late\n\n"

    async def endpoint(request):
        return sse(parts())

    url = serve(Route("/", endpoint), defer_start_s=0.02)
    with httpx.stream("GET", url, timeout=60, trust_env=False) as answer:
        go_on.set()  # only now: the headers are here
        assert answer.read() == b"data: late\n\n"


def test_a_client_that_leaves_is_charged_and_holds_nothing(serve, chat, pg):
    """When the client goes away in mid-stream, what was generated is posted and the hold is gone."""

    async def endpoint(request):
        return sse(chat.stream(extra_headers={"x-llm-chunk-latency-ms": "20"}))

    with httpx.stream("GET", serve(Route("/", endpoint)), headers=ADA, trust_env=False) as answer:
        next(answer.iter_bytes())
    eventually(lambda: pg.get_usage("ada").period_cost > 0 and pg.get_usage("ada").reserved_cost == 0)
