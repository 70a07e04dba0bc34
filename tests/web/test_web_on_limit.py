"""``on_limit`` in each framework: what it may return, and what becomes of anything else."""

from __future__ import annotations

import asyncio
import logging

import flask
import httpx
import litestar
import pytest
import quart
from litestar.response import Redirect
from litestar.response import Stream as LitestarStream
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, RedirectResponse, StreamingResponse
from starlette.routing import Route

from paygent.core.usage import Usage
from paygent_flask import Paygent as FlaskPaygent
from paygent_starlette import add_paygent
from paygent_starlette.litestar import PaygentPlugin


@pytest.fixture
def ask(pg):
    """Return a function that makes one LLM call of whoever the running request belongs to."""

    def ask():
        with pg._meter.call(pg._meter.payer(None), "openai", "chat", "gpt-4o-mini", 4, 10) as call:
            call.finish(Usage(1, 1))
        return "ok"

    return ask


def starlette_app(ask, **options):
    async def plain(request):
        return PlainTextResponse(ask())

    async def stream(request):
        return StreamingResponse(parts(ask))

    app = Starlette(routes=[Route("/plain", plain), Route("/stream", stream)])
    add_paygent(app, **options)
    return app


def litestar_app(ask, **options):
    @litestar.get("/plain")
    async def plain() -> str:
        return ask()

    @litestar.get("/stream")
    async def stream() -> LitestarStream:
        return LitestarStream(parts(ask))

    plugin = PaygentPlugin(**options)
    return litestar.Litestar([plain, stream], plugins=[plugin], openapi_config=None, logging_config=None)


def quart_app(ask, **options):
    app = quart.Quart("app")

    @app.get("/plain")
    async def plain():
        return ask()

    @app.get("/stream")
    async def stream():
        return quart.stream_with_context(parts)(ask)

    add_paygent(app, **options)
    return app


def flask_app(ask, **options):
    app = flask.Flask("app")
    FlaskPaygent(app, **options)
    app.add_url_rule("/plain", "plain", ask)
    app.add_url_rule("/stream", "stream", lambda: flask.Response(ask() for _ in range(1)))
    return app


async def parts(ask):
    yield ask()


def answered(make, ask, path, on_limit):
    """The answer of an app to ``ben``, whose plan is spent."""
    app = make(ask, get_user_id=lambda request: "ben", on_limit=on_limit)
    if isinstance(app, flask.Flask):
        transport = httpx.WSGITransport(app, raise_app_exceptions=False)
        with httpx.Client(transport=transport, base_url="http://app") as client:
            return client.get(path)
    return asyncio.run(answered_async(app, path))


async def answered_async(app, path):
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        return await client.get(path)


APPS = {"starlette": starlette_app, "litestar": litestar_app, "quart": quart_app, "flask": flask_app}


async def later():
    return PlainTextResponse("own")


NO_RESPONSE = {
    "dict": lambda request, problem: {"code": problem["code"]},
    "text": lambda request, problem: "spent",
    "pair": lambda request, problem: ({"code": problem["code"]}, 402),
    "coroutine": lambda request, problem: later(),
    "object": lambda request, problem: object(),
}
OF_VIEWS = ("dict", "text", "pair")  # what views of Flask and Quart may return


@pytest.mark.parametrize("path", ["/plain", "/stream"])
@pytest.mark.parametrize(
    ("framework", "kind"),
    [
        (framework, kind)
        for framework in APPS
        for kind in NO_RESPONSE
        if framework not in ("flask", "quart") or kind not in OF_VIEWS
    ],
)
def test_what_is_no_response_gives_way_to_the_usual_one(framework, kind, path, ask, caplog):
    """An ``on_limit`` that returns nothing to send leaves the usual 429, and one error in the log."""
    answer = answered(APPS[framework], ask, path, NO_RESPONSE[kind])
    assert (answer.status_code, answer.json()["code"]) == (429, "period_spend")
    assert answer.headers["x-should-retry"] == "false"
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert ["on_limit returned no response" in record.getMessage() for record in errors] == [True]


@pytest.mark.parametrize("path", ["/plain", "/stream"])
@pytest.mark.parametrize("framework", ["quart", "flask"])
def test_what_a_view_may_return_on_limit_may_return(framework, path, ask):
    """Under Flask and Quart ``on_limit`` may answer with whatever a view may, also in place of a stream."""
    answer = answered(APPS[framework], ask, path, NO_RESPONSE["pair"])
    assert (answer.status_code, answer.json()) == (402, {"code": "period_spend"})


REDIRECTS = {
    "starlette": lambda: RedirectResponse("/upgrade", 303),
    "litestar": lambda: Redirect("/upgrade", status_code=303),
    "quart": lambda: quart.redirect("/upgrade", 303),
    "flask": lambda: flask.redirect("/upgrade", 303),
}


@pytest.mark.parametrize("path", ["/plain", "/stream"])
@pytest.mark.parametrize("framework", APPS)
def test_on_limit_may_redirect(framework, path, ask):
    """The framework's own redirect is sent, in place of a stream too."""
    answer = answered(APPS[framework], ask, path, lambda request, problem: REDIRECTS[framework]())
    assert (answer.status_code, answer.headers["location"]) == (303, "/upgrade")
