"""The options and verbs on real servers: who is exempt, what is tagged, what the answers look like."""

import asyncio
import contextlib
import contextvars
import threading
from typing import Annotated

import fastapi
import httpx
import pytest
import quart
from asgi_clients import eventually
from fastapi import Depends
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from paygent import GuardResult, Paygent, PaygentLimitExceeded
from paygent_starlette import (
    PaygentMiddleware,
    add_paygent,
    check_limits,
    current_slot,
    exempt,
    me_route,
    paygent_lifespan,
    require_budget,
    tag,
)

ADA, BEN = {"x-user": "ada"}, {"x-user": "ben"}
TOKENS = 23


def get(url, **options):
    return httpx.get(url, timeout=60, trust_env=False, **options)


def used(pg, user="ada"):
    return pg.get_usage(user).period_tokens_total


@pytest.fixture
def ask(chat):
    async def endpoint(request):
        return PlainTextResponse(await chat.ask())

    return endpoint


# --- who is asked, and who is not -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["get_user_id", "get_session_id", "get_plan", "metadata", "anonymous"])
@pytest.mark.parametrize("kind", ["plain", "async"])
def test_a_request_without_a_call_asks_for_nothing(name, kind, serve, pg):
    """No option, plain or async, is asked by a request that calls no model."""
    asked = []

    async def find_async(request):
        asked.append(request)

    url = serve(
        Route("/", lambda request: PlainTextResponse("quiet")),
        **{name: asked.append if kind == "plain" else find_async},
    )
    answer = get(url)
    assert (answer.status_code, asked) == (200, [])
    assert "vary" not in answer.headers


def test_an_async_option_serves_a_synchronous_endpoint(serve, chat, pg):
    """A call of a synchronous client in a plain endpoint belongs to the user whom an async function finds."""

    async def find(request):
        return request.headers["x-user"]

    def endpoint(request):
        return PlainTextResponse(chat.ask_sync())

    get(serve(Route("/", endpoint), get_user_id=find), headers=ADA)
    assert used(pg) == TOKENS


async def find_with_the_loop(request):
    """As a pool of connections does that belongs to the loop of the request."""
    assert asyncio.get_running_loop() is request.app.state.loop
    await asyncio.sleep(0)
    return request.headers["x-user"]


def in_thread(function):
    thread = threading.Thread(target=contextvars.copy_context().run, args=(function,))
    thread.start()
    return thread


@pytest.mark.parametrize("way", ["to_thread", "thread"])
def test_an_async_option_serves_a_thread_of_the_apps_own(way, serve, chat, pg, caplog):
    """A call on a thread that no framework knows belongs to whoever the function finds, on the loop."""

    async def endpoint(request):
        request.app.state.loop = asyncio.get_running_loop()
        if way == "to_thread":
            await asyncio.to_thread(chat.ask_sync)
        else:
            in_thread(chat.ask_sync)
        return PlainTextResponse("done")

    get(serve(Route("/", endpoint), get_user_id=find_with_the_loop), headers=ADA)
    eventually(lambda: used(pg) == TOKENS)
    assert "is async" not in caplog.text


def test_an_async_option_waits_for_no_loop_that_stands_still(serve, chat, pg, caplog, monkeypatch):
    """Where the loop itself waits for the thread, the call goes on without; later users are known early."""
    monkeypatch.setattr("paygent.web.waiting.WAIT_S", 0.05)

    async def endpoint(request):
        request.app.state.loop = asyncio.get_running_loop()
        in_thread(chat.ask_sync).join()
        return PlainTextResponse("done")

    url = serve(Route("/", endpoint), get_user_id=find_with_the_loop)
    get(url, headers=ADA)
    assert "get_user_id is async" in caplog.text
    get(url, headers=ADA)
    eventually(lambda: used(pg) == TOKENS)


def test_an_async_option_on_a_blocked_loop_is_awaited_from_then_on(serve, chat, pg, caplog):
    """A synchronous client on the event loop cannot await: that is said, and then users are known early."""

    async def find(request):
        return request.headers["x-user"]

    async def endpoint(request):
        return PlainTextResponse(chat.ask_sync())

    url = serve(Route("/", endpoint), get_user_id=find)
    get(url, headers=ADA)
    assert "get_user_id is async" in caplog.text
    assert used(pg) == 0
    get(url, headers=ADA)
    assert used(pg) == TOKENS


def test_session_plan_and_metadata_of_a_request(serve, ask, pg):
    """The other finders decide session, plan and metadata of each call."""
    events = []
    pg.on_usage(events.append)
    url = serve(
        Route("/", ask),
        get_session_id=lambda request: "tab-1",
        get_plan=lambda request: "pro",
        metadata=lambda request: {"path": request.url.path},
    )
    assert get(url, headers={"x-user": "new"}).status_code == 200
    assert (events[0].session_id, events[0].metadata) == ("tab-1", {"path": "/"})
    assert pg.get_user_state("new").plan == "pro"


def test_nobody_is_asked_to_sign_in(serve, ask):
    """With ``anonymous="block"`` a call of nobody is the 401 ``no_user``, without an upgrade."""
    answer = get(serve(Route("/", ask), anonymous="block"))
    assert (answer.status_code, answer.json()["code"], answer.json()["upgrade"]) == (401, "no_user", None)


def test_nobody_may_be_somebody(serve, ask, pg):
    """A function as ``anonymous`` names who pays for calls of nobody."""
    get(serve(Route("/", ask), anonymous=lambda request: f"anon:{request.client.host}"))
    assert used(pg, "anon:127.0.0.1") == TOKENS


# --- exemptions and verbs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exempt_", "path"),
    [
        ("/free", "/free"),
        ("/area/", "/area/inner"),
        ("/ar*", "/area/inner"),
        ("named", "/free"),
        ("area:inner", "/area/inner"),
        (lambda request: request.url.path == "/free", "/free"),
    ],
)
def test_an_exempt_route_is_not_metered(exempt_, path, serve, ask, pg):
    """Paths, names of routes (also below a mount) and functions exempt; a spent user passes there."""
    routes = [
        Route("/free", ask, name="named"),
        Mount("/area", routes=[Route("/inner", ask_again(ask), name="inner")], name="area"),
        Route("/metered", ask_again(ask)),
    ]
    url = serve(*routes, exempt=[exempt_])
    assert get(url + path, headers=BEN).status_code == 200
    assert get(url + "/metered", headers=BEN).status_code == 429
    assert used(pg, "ben") == 0


def ask_again(ask):
    async def endpoint(request):
        return await ask(request)

    return endpoint


def test_decorated_endpoints(serve, ask, chat, pg):
    """``exempt``, ``tag`` and ``require_budget`` decorate async and plain endpoints."""
    events = []
    pg.on_usage(events.append)

    def plain(request):
        return PlainTextResponse(chat.ask_sync())

    url = serve(
        Route("/exempt", exempt(ask)),
        Route("/tagged", tag(feature="chat")(plain)),
        Route("/dear", require_budget(usd=100)(ask)),
    )
    assert get(f"{url}/exempt", headers=BEN).status_code == 200
    assert get(f"{url}/tagged", headers=ADA).status_code == 200
    refused = get(f"{url}/dear", headers=ADA)
    assert (refused.status_code, refused.json()["detail"]) == (
        429,
        "What is left of your Pro plan does not cover this request.",
    )
    assert [event.metadata for event in events] == [{"feature": "chat"}]


@pytest.fixture
def fast(chat, host):
    """A FastAPI app whose endpoints say things through dependencies."""
    app = fastapi.FastAPI()

    @app.get("/exempt", dependencies=[Depends(exempt)])
    async def exempted():
        return await chat.ask()

    @app.get("/tagged", dependencies=[Depends(tag(feature="chat"))])
    async def tagged():
        return await chat.ask()

    @app.get("/required", dependencies=[Depends(require_budget())])
    async def required():
        return "it ran"

    @app.get("/checked")
    async def checked(guard: Annotated[GuardResult, Depends(check_limits(model="gpt-4o"))]):
        return guard.status

    @app.get("/named", name="named")
    async def named():
        return await chat.ask()

    @app.get("/decorated")
    @tag(feature="decorated")
    def decorated(word: str):
        return chat.ask_sync() and word

    add_paygent(app, get_user_id=lambda request: request.headers.get("x-user"), exempt=["named"])
    return host(app)


def test_dependencies_say_the_same(fast, pg):
    """The verbs are FastAPI dependencies as they are decorators; they add no parameters to the endpoint."""
    events = []
    pg.on_usage(events.append)
    assert get(f"{fast}/exempt", headers=BEN).status_code == 200
    assert get(f"{fast}/named", headers=BEN).status_code == 200
    assert get(f"{fast}/tagged", headers=ADA).status_code == 200
    assert get(f"{fast}/decorated?word=hello", headers=ADA).json() == "hello"
    assert [event.metadata["feature"] for event in events] == ["chat", "decorated"]
    paths = get(f"{fast}/openapi.json").json()["paths"]
    assert [
        parameter["name"] for path in paths.values() for parameter in path["get"].get("parameters", ())
    ] == ["word"]


def test_limits_are_checked_before_the_endpoint(fast):
    """``require_budget`` and ``check_limits`` refuse a spent user, and let another one in."""
    for path in ("required", "checked"):
        assert get(f"{fast}/{path}", headers=BEN).status_code == 429
    assert get(f"{fast}/required", headers=ADA).json() == "it ran"
    assert get(f"{fast}/checked", headers=ADA).json() == "ok"


# --- what is answered -------------------------------------------------------------------------------------


def test_only_reporting(serve, ask, pg):
    """With ``report_only`` a call beyond the limit runs, is posted, and is reported to the callback."""
    reports = []
    pg.on_hard_gate(reports.append)
    assert get(serve(Route("/", ask), report_only=True), headers=BEN).status_code == 200
    assert used(pg, "ben") == TOKENS
    assert [report.gate_reason for report in reports] == ["total_spend"]


def test_switched_off(serve, ask, pg):
    """With ``enabled=False`` nothing is attributed, and there is nothing of a request to see."""

    async def endpoint(request):
        assert current_slot() is None
        return await ask(request)

    url = serve(Route("/", endpoint), me_route(), enabled=False)
    assert get(url, headers=BEN).status_code == 200
    assert get(f"{url}/paygent/me").status_code == 404
    assert used(pg, "ben") == 0


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_an_answer_of_the_apps_own(kind, serve, chat):
    """What ``on_limit`` returns is sent, also where a stream was about to begin."""

    def plain(request, problem):
        return JSONResponse({"path": request.url.path, "code": problem["code"]}, 402)

    async def awaited(request, problem):
        return plain(request, problem)

    async def stream(request):
        return StreamingResponse(chat.stream(), media_type="text/event-stream")

    answer = get(serve(Route("/", stream), on_limit=plain if kind == "plain" else awaited), headers=BEN)
    assert (answer.status_code, answer.json()) == (402, {"path": "/", "code": "period_spend"})


def test_usage_headers(serve, ask, chat):
    """With ``usage_headers`` a response that made calls tells plan and usage; one without calls does not."""

    async def stream(request):
        return StreamingResponse(chat.stream(), media_type="text/event-stream")

    url = serve(
        Route("/", ask),
        Route("/stream", stream),
        Route("/quiet", lambda request: PlainTextResponse("")),
        usage_headers=True,
    )
    for path in ("/", "/stream"):
        headers = get(url + path, headers=ADA).headers
        assert (headers["paygent-plan"], headers["paygent-limit"]) == ("pro", "10.00")
        assert float(headers["paygent-used"]) + float(headers["paygent-remaining"]) == pytest.approx(10)
    assert not [name for name in get(f"{url}/quiet", headers=ADA).headers if name.startswith("paygent")]


def test_the_facts_of_a_request(serve, chat):
    """``request.state.paygent`` knows user, cost, calls and tokens of this request."""

    async def endpoint(request):
        await chat.ask()
        await chat.ask()
        facts = request.state.paygent
        return JSONResponse([facts.user_id, facts.calls, facts.tokens, facts.cost > 0, facts.warning])

    assert get(serve(Route("/", endpoint)), headers=ADA).json() == ["ada", 2, 2 * TOKENS, True, None]


ATTACKS = [
    {"headers": {"host": "evil.example", "x-forwarded-host": "evil.example"}},
    {"headers": {"referer": "https://evil.example/", "origin": "https://evil.example"}},
    {"params": {"next": "https://evil.example", "plan": "evil", "upgrade_url": "//evil.example"}},
    {"headers": {"x-user": "evil"}},
]


@pytest.mark.parametrize("template", ["/up?from={plan}", "https://pay.example/up?from={plan}"])
def test_the_upgrade_address_never_echoes_a_request(template, serve, ask, pg):
    """Whatever a request says, the upgrade address is the app's own template with the plan's name in it."""
    pg.assign_plan("evil", "free")
    url = serve(Route("/", ask), upgrade_url=template)
    for attack in ATTACKS:
        answer = get(url, headers={**BEN, **attack.get("headers", {})}, params=attack.get("params"))
        assert answer.json()["upgrade"]["url"] == template.format(plan="free")
        assert "evil" not in answer.text


def test_a_plans_name_is_encoded_in_the_address(serve, ask, pg):
    """A plan whose name is an attack stays one parameter of the address, and harmless text of the page."""
    name = 'x"><script>&to=//evil'
    pg.configure_plan(name, pg.get_user_state("ben").plan_config)
    pg.assign_plan("ben", name)
    url = serve(Route("/", ask), upgrade_url="/up?from={plan}")
    told = get(url, headers=BEN).json()["upgrade"]["url"]
    assert told == "/up?from=x%22%3E%3Cscript%3E%26to%3D%2F%2Fevil"
    page = get(url, headers={**BEN, "accept": "text/html"}).text
    assert "<script" not in page


def test_a_catch_all_of_the_apps_does_not_hide_the_refusal(serve, host, ask):
    """A 500 that a middleware of the app's made of the refusal is replaced by the 429."""

    async def catch_all(request, call_next):
        try:
            return await call_next(request)
        except Exception:  # noqa: BLE001  # what the test is about
            return JSONResponse({"oops": True}, 500)

    middleware = [
        Middleware(PaygentMiddleware, get_user_id=lambda request: request.headers.get("x-user")),
        Middleware(BaseHTTPMiddleware, dispatch=catch_all),
    ]
    app = Starlette(routes=[Route("/", ask)], middleware=middleware)
    assert get(host(app), headers=BEN).json()["code"] == "period_spend"


def test_an_app_may_go_on_after_a_refusal(serve, chat):
    """An endpoint that catches the refusal answers as it likes."""

    async def endpoint(request):
        try:
            await chat.ask()
        except PaygentLimitExceeded:
            return PlainTextResponse("a cheaper answer")

    answer = get(serve(Route("/", endpoint)), headers=BEN)
    assert (answer.status_code, answer.text) == (200, "a cheaper answer")


def test_a_handler_of_the_apps_own_wins(host, ask, pg):
    """An exception handler that the app registers is not replaced."""

    async def own(request, error):
        return PlainTextResponse("mine", 418)

    app = Starlette(routes=[Route("/", ask)], exception_handlers={PaygentLimitExceeded: own})
    add_paygent(app, get_user_id=lambda request: "ben")
    assert get(host(app)).status_code == 418


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_handler_of_a_quart_apps_own_wins(when, host, ask, pg):
    """Under Quart too an error handler of the app answers, registered before add_paygent or after it."""
    app = quart.Quart("app")

    async def own(error):
        return {"own": error.refusal.code}, 402

    if when == "before":
        app.register_error_handler(PaygentLimitExceeded, own)
    add_paygent(app, get_user_id=lambda request: "ben")
    if when == "after":
        app.register_error_handler(PaygentLimitExceeded, own)

    @app.get("/")
    async def index():
        await ask(None)

    answer = get(host(app))
    assert (answer.status_code, answer.json()) == (402, {"own": "period_spend"})


# --- putting it into an app -------------------------------------------------------------------------------


def test_a_quiet_stream_opens_when_its_call_is_admitted(serve, chat):
    """A stream whose first chunk is slow has its headers at once when the call behind it is let in."""

    async def parts():
        async for part in chat.stream(extra_headers={"x-llm-latency-ms": "1500"}):
            yield part

    async def endpoint(request):
        return StreamingResponse(parts(), media_type="text/event-stream")

    url = serve(Route("/", endpoint), defer_start_s=60)
    with (
        httpx.Client(timeout=httpx.Timeout(10, read=1.2), trust_env=False) as client,
        client.stream("GET", url, headers=ADA) as answer,
    ):
        assert answer.status_code == 200  # within the read timeout, long before the first chunk


def test_it_is_told_when_it_comes_too_late(pg):
    """An app that serves already, or of another kind, is refused; so is an option that does not exist."""
    app = Starlette()
    app.middleware_stack = app.build_middleware_stack()
    with pytest.raises(RuntimeError, match="too late"):
        add_paygent(app)
    with pytest.raises(TypeError, match="not object"):
        add_paygent(object())
    with pytest.raises(TypeError, match="did you mean upgrade_url"):
        add_paygent(Starlette(), upgrade_ur="/")


async def test_a_lifespan_begins_and_ends_paygent():
    """``paygent_lifespan`` initialises, runs the app's own lifespan inside, and shuts down."""
    seen = []

    @contextlib.asynccontextmanager
    async def own(app):
        seen.append(Paygent.get_instance().is_initialized)
        yield {"own": 1}
        seen.append(Paygent.get_instance().is_initialized)

    async with paygent_lifespan(own, ledger="memory://", auto_instrument=False)(None) as state:
        assert state == {"own": 1}
    assert seen == [True, True]
    assert Paygent.get_instance() is None


async def test_a_lifespan_leaves_the_apps_own_instance(pg):
    """Where the app has called ``init`` itself, the lifespan uses that one and does not end it."""
    async with paygent_lifespan(ledger="sqlite:////nowhere/at/all.db")(None):
        assert Paygent.get_instance() is pg
    assert pg.is_initialized


def test_an_event_of_a_route_is_flushed_with_it(host, chat):
    """With ``init(flush_on_request_end=True)`` what a request used is in the ledger when it is over."""
    pg = Paygent.init(ledger="memory://", flush_on_request_end=True, flush_interval=60)

    async def endpoint(request):
        return PlainTextResponse(await chat.ask())

    app = Starlette(routes=[Route("/", endpoint)])
    add_paygent(app, get_user_id=lambda request: "ada")
    assert get(host(app)).status_code == 200
    eventually(lambda: pg.pending_events == 0 and pg.queue_stats["flushed"] == 1, 0.5)
    pg.shutdown()


def mounted(**options):
    """An app with options of its own, mounted in one whose users name themselves in another header."""

    async def who(request):
        return PlainTextResponse(str(request.state.paygent.user_id))

    inner = Starlette(routes=[Route("/who", who)])
    add_paygent(inner, **options)
    site = Starlette(routes=[Mount("/api", inner), Route("/who", who)])
    add_paygent(site, get_user_id=lambda request: request.headers.get("x-cookie"))
    with TestClient(site) as client:
        headers = {"x-cookie": "ada", "x-key": "bob"}
        return [client.get(path, headers=headers).text for path in ("/who", "/api/who")]


def test_a_mounted_app_with_options_of_its_own_finds_its_users(pg):
    """Each of the two apps asks its own function; the outer one keeps its own requests."""
    assert mounted(get_user_id=lambda request: request.headers.get("x-key")) == ["ada", "bob"]


def test_a_mounted_app_without_options_leaves_it_to_the_outer_one(pg):
    """Where it says nothing of its own, the user is the one that the site knows."""
    assert mounted() == ["ada", "ada"]
