"""A ledger that hangs and an app with bugs of its own, behind the web plugins."""

import asyncio
import contextlib
import threading

import httpx
import pytest
from flask import Flask, g
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Route

from paygent import Paygent, PaygentLimitExceeded
from paygent.core.usage import Usage
from paygent_flask import Paygent as FlaskPaygent
from paygent_starlette import PaygentMiddleware, me_route, require_budget


def ask(pg):
    """One LLM call of whoever the running request belongs to."""
    with pg._meter.call(pg._meter.payer(None), "openai", "chat", "gpt-4o-mini", 4, 10) as call:
        call.finish(Usage(1, 1))
    return "ok"


async def user_header(request):
    await asyncio.sleep(0)
    return request.headers.get("x-user")


@require_budget()
async def costly(request):
    return JSONResponse({})


async def first_answer(path):
    """The first answer of a fresh app to ``ben``, whose plan is spent."""
    options = Middleware(PaygentMiddleware, get_user_id=user_header)
    app = Starlette(routes=[Route("/costly", costly), me_route("/me")], middleware=[options])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
        return await client.get(path, headers={"x-user": "ben"})


@pytest.mark.parametrize(("path", "status"), [("/costly", 429), ("/me", 200)])
def test_an_async_user_is_known_from_the_first_request_on(pg, path, status):
    """An async get_user_id is heeded by the verbs and by /me before any LLM call has been made."""
    assert asyncio.run(first_answer(path)).status_code == status


def test_a_bug_after_a_caught_refusal_stays_a_server_error(pg):
    """Who catches the refusal and then fails for another reason has a 500, not a spent plan."""
    app = Flask(__name__)
    FlaskPaygent(app, get_user_id=lambda request: "ben")

    @app.get("/")
    def view():
        with contextlib.suppress(PaygentLimitExceeded):
            ask(pg)
        return {}["a bug of the app"]

    assert app.test_client().get("/").status_code == 500


def test_an_app_may_answer_a_refusal_with_a_500_of_its_own(pg):
    """A 500 after a refusal counts as the refusal, unless the view says that it is done with that."""
    app = Flask(__name__)
    FlaskPaygent(app, get_user_id=lambda request: "ben")

    @app.get("/<mine>")
    def view(mine):
        with contextlib.suppress(PaygentLimitExceeded):
            ask(pg)
        if mine == "own":
            g.paygent.refusal = None
        return "database down", 500

    answers = [app.test_client().get(path).status_code for path in ("/hidden", "/own")]
    assert answers == [429, 500]


async def test_an_asgi_app_may_answer_a_refusal_with_a_500_of_its_own(pg):
    """The same in ASGI."""

    async def view(request):
        with contextlib.suppress(PaygentLimitExceeded):
            ask(pg)
        if request.url.path == "/own":
            request.state.paygent.refusal = None
        return JSONResponse("database down", 500)

    options = Middleware(PaygentMiddleware, get_user_id=lambda request: "ben")
    app = Starlette(routes=[Route("/hidden", view), Route("/own", view)], middleware=[options])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
        assert (await client.get("/hidden")).status_code == 429
        assert (await client.get("/own")).status_code == 500


def test_the_end_of_a_request_does_not_wait_for_a_ledger_that_hangs(tmp_path):
    """With flush_on_request_end, a ledger that does not answer costs a request no more than the patience."""
    pg = Paygent.init(ledger="memory://", flush_on_request_end=True, auto_instrument=False)
    app, hangs, released = Flask(__name__), threading.Event(), threading.Event()
    lease = pg._meter.ledger.lease
    given_up = []

    def hanging(requests):
        if hangs.is_set() and not released.wait(60):
            given_up.append(requests)
        return lease(requests)

    pg._meter.ledger.lease = hanging
    FlaskPaygent(app, get_user_id=lambda request: "ada")
    app.add_url_rule("/", view_func=lambda: ask(pg))
    try:
        app.test_client().get("/").close()
        hangs.set()
        app.test_client().get("/").close()
        assert given_up == []
    finally:
        released.set()
        pg.shutdown()
