"""The plugin in service: SDK clients, other origins, clients who leave, many users, a ledger that is away."""

import json
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import anthropic
import httpx
import openai
import pytest
from asgi_apps import APPS
from asgi_clients import eventually, signed_in
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from paygent import Paygent, PlanConfig
from paygent_starlette import PaygentMiddleware, add_paygent

ADA, BEN = {"x-user": "ada"}, {"x-user": "ben"}
SHOP = "https://shop.example"


def get(url, **options):
    return httpx.get(url, timeout=60, trust_env=False, **options)


def user_header(request):
    return request.headers.get("x-user")


# --- SDK clients pointed at the app -----------------------------------------------------------------------


@pytest.fixture
def proxy(host, chat):
    """An app that offers the two APIs to SDK clients, and counts the requests that reach it."""
    paths = []

    def start(**options):
        async def endpoint(request):
            paths.append(request.url.path)
            return PlainTextResponse(await chat.ask())

        async def stream(request):
            paths.append(request.url.path)

            async def parts():
                yield 'data: {"choices": []}\n\n'
                await chat.ask()

            return StreamingResponse(parts(), media_type="text/event-stream")

        routes = [
            Route("/v1/chat/completions", endpoint, methods=["POST"]),
            Route("/v1/messages", endpoint, methods=["POST"]),
            Route("/stream/chat/completions", stream, methods=["POST"]),
        ]
        app = Starlette(routes=routes)
        add_paygent(app, get_user_id=lambda request: "ben", **options)
        return host(app)

    start.paths = paths
    return start


@pytest.mark.parametrize("error_format", ["problem", "openai"])
def test_the_openai_client_raises_at_once(error_format, proxy):
    """The real OpenAI client with its default retries makes one request and raises its rate-limit error."""
    url = proxy(error_format=error_format)
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key="any") as client,
        pytest.raises(openai.RateLimitError) as caught,
    ):
        client.chat.completions.create(model="m", messages=[], extra_headers={"x": "y"})
    assert len(proxy.paths) == 1
    assert caught.value.status_code == 429
    if error_format == "openai":
        assert (caught.value.code, caught.value.type) == ("period_spend", "insufficient_quota")
        assert caught.value.body["problem"]["plan"]["name"] == "free"


@pytest.mark.parametrize("error_format", ["problem", "anthropic"])
def test_the_anthropic_client_raises_at_once(error_format, proxy):
    """The real Anthropic client with its default retries makes one request and raises a rate-limit error."""
    url = proxy(error_format=error_format)
    with (
        anthropic.Anthropic(base_url=url, api_key="any") as client,
        pytest.raises(anthropic.RateLimitError) as caught,
    ):
        client.messages.create(model="m", max_tokens=1, messages=[{"role": "user", "content": "hi"}])
    assert len(proxy.paths) == 1
    if error_format == "anthropic":
        assert caught.value.body["error"]["type"] == "rate_limit_error"


def test_the_openai_client_raises_in_mid_stream(proxy):
    """With ``error_format="openai"`` a gate in mid-stream is the error that the SDK reads from a stream."""
    url = proxy(error_format="openai")
    with openai.OpenAI(base_url=f"{url}/stream", api_key="any") as client:
        chunks = client.chat.completions.create(model="m", messages=[], stream=True)
        with pytest.raises(openai.APIError, match="You have used all of your Free plan"):
            list(chunks)
    assert len(proxy.paths) == 1


# --- other origins ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/stream"])
def test_a_script_of_another_origin_can_read_the_refusal(path, host, chat):
    """The app's CORS headers are on the 429, in whichever order the two middlewares were added."""

    async def endpoint(request):
        return PlainTextResponse(await chat.ask())

    async def stream(request):
        return StreamingResponse(chat.stream(), media_type="text/event-stream")

    app = Starlette(routes=[Route("/", endpoint), Route("/stream", stream)])
    app.add_middleware(CORSMiddleware, allow_origins=[SHOP], expose_headers=["Paygent-Used"])
    add_paygent(app, get_user_id=user_header)
    answer = get(host(app) + path, headers={**BEN, "origin": SHOP})
    assert (answer.status_code, answer.json()["code"]) == (429, "period_spend")
    assert answer.headers["access-control-allow-origin"] == SHOP
    assert answer.headers["access-control-expose-headers"] == "Paygent-Used"
    assert "Accept" in answer.headers["vary"]
    assert "Origin" in answer.headers["vary"]


def test_a_misplaced_cors_middleware_is_told(host, pg, caplog):
    """Where CORS is inside of Paygent, the log says once that browsers will hide the answers."""
    middleware = [Middleware(PaygentMiddleware), Middleware(CORSMiddleware, allow_origins=["*"])]
    url = host(Starlette(routes=[Route("/", lambda request: PlainTextResponse(""))], middleware=middleware))
    for _ in range(2):
        get(url)
    assert caplog.text.count("outside of CORSMiddleware") == 1


# --- clients who leave ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["async", "sync", "waiting"])
def test_a_client_who_leaves_is_settled_within_a_second(kind, serve, chat, llm, pg):
    """After a disconnect in mid-stream usage is posted and nothing is held, whatever the generator's kind."""
    slow = {"x-llm-chunk-latency-ms": "30"}

    def plain():
        for chunk in client.chat.completions.create(
            model="gpt-4o-mini", messages=[], stream=True, extra_headers=slow
        ):
            yield f"data: {chunk.id}\n\n"

    async def waiting():
        async for part in chat.stream(extra_headers=slow):
            yield part * 100_000  # more than the socket takes: the generator waits in its `yield`

    async def endpoint(request):
        parts = {"async": lambda: chat.stream(extra_headers=slow), "sync": plain, "waiting": waiting}
        return StreamingResponse(parts[kind](), media_type="text/event-stream")

    with openai.OpenAI(base_url=llm.openai_base_url, api_key="any") as client:
        with httpx.stream("GET", serve(Route("/", endpoint)), headers=ADA, trust_env=False) as answer:
            next(answer.iter_bytes())
        used = partial(pg.get_usage, "ada")
        eventually(lambda: used().period_cost > 0 and used().reserved_cost == 0, timeout_s=10)


# --- many users -------------------------------------------------------------------------------------------


def test_two_hundred_users_are_never_mixed(serve, chat, pg):
    """Two hundred users at once, streamed and plain: each is charged for his own call and no other."""
    users = [f"user-{number}" for number in range(200)]
    wrong = []
    pg.on_usage(lambda event: wrong.append(event) if event.metadata["for"] != event.user_id else None)

    async def endpoint(request):
        request.state.paygent.tag(**{"for": request.headers["x-user"]})
        number = int(request.query_params["n"])
        if number % 2:
            return StreamingResponse(chat.stream(max_tokens=2 + number % 7), media_type="text/event-stream")
        return PlainTextResponse(await chat.ask(max_tokens=2 + number % 7))

    url = serve(Route("/", endpoint))
    with ThreadPoolExecutor(40) as pool, httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        answers = pool.map(
            lambda n: client.get("/", params={"n": n}, headers={"x-user": users[n]}).status_code, range(200)
        )
        assert set(answers) == {200}
    tokens = [pg.get_usage(user).period_tokens_total for user in users]
    assert tokens == [3 + 2 + n % 7 for n in range(200)]
    assert wrong == []
    assert {pg.get_usage(user).reserved_cost for user in users} == {0}


# --- a ledger that is away --------------------------------------------------------------------------------


@pytest.mark.parametrize(("fail_open", "status"), [(True, 200), (False, 503)])
def test_a_ledger_that_is_away(fail_open, status, host, chat, tmp_path, ledger_waits):
    """Requests are served, or answered 503 where the app says so; after the first none waits for it."""
    path = tmp_path / "p.db"
    pg = Paygent.init(ledger=f"sqlite:///{path}", fail_open=fail_open)
    pg.configure_plan("default", PlanConfig(max_spend_per_period=1.0))
    app = Starlette(routes=[Route("/", ask_of(chat))])
    add_paygent(app, get_user_id=user_header)
    url = host(app)
    another = sqlite3.connect(path, isolation_level=None)
    another.execute("BEGIN EXCLUSIVE")
    try:
        answer = get(url, headers=ADA)
        assert answer.status_code == status
        assert len(ledger_waits)
        ledger_waits.forget()
        assert [get(url, headers=ADA).status_code for _ in range(10)] == [status] * 10
        assert len(ledger_waits) == 0
        if status == 503:
            assert (answer.json()["code"], answer.headers["retry-after"]) == ("unavailable", "5")
    finally:
        another.execute("ROLLBACK")
        another.close()
        pg.shutdown()


def ask_of(chat):
    async def endpoint(request):
        return PlainTextResponse(await chat.ask())

    return endpoint


# --- the front end's own route ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in APPS if name != "quart"])
def test_a_user_sees_his_own_standing(name, host, chat, pg):
    """``GET …/paygent/me`` answers the signed-in user with his own plan, and nobody with 401."""
    url = host(APPS[name](chat))
    with signed_in(url, "ada") as ada, signed_in(url, "ben") as ben:
        assert ada.get("/paygent/me").json()["plan"]["name"] == "pro"
        shown = ben.get("/paygent/me")
        assert (shown.json()["plan"]["name"], shown.json()["state"]) == ("free", "hard_gate")
        assert shown.headers["cache-control"] == "no-store"
    assert get(f"{url}/paygent/me").status_code == 401


def test_the_reset_is_the_end_of_the_billing_period(serve, chat, pg):
    """``resets_at`` of the refusal is the moment at which the user's period ends, in UTC."""
    told = json.loads(get(serve(Route("/", ask_of(chat))), headers=BEN).content)["resets_at"]
    month = time.gmtime()
    year, number = (month.tm_year, month.tm_mon + 1) if month.tm_mon < 12 else (month.tm_year + 1, 1)
    assert told == f"{year}-{number:02}-01T00:00:00Z"
