"""
What a web plugin adds to a request that makes no LLM call, below any server: the framework's own app, called.

One function per framework, which returns the app bare and with the plugin; :data:`FRAMEWORKS` lists them with
the target of each. An app is called as its server calls it, and its answer is read to the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple

from benchmarks._measure import Pair, in_turn, in_turn_async
from benchmarks._setup import paygent
from benchmarks._suite import Row, Sizes, benchmark

ROUNDS_PER_CALL = 3  # a request takes a tenth of a call, and its noise is a larger part of it


class WrongAnswerError(Exception):
    """A benchmark of requests was answered something else than its page."""


class Apps(NamedTuple):
    """A request to the same page of the same app: ``bare`` without the plugin, ``ours`` with it."""

    bare: Callable[[], Any]
    ours: Callable[[], Any]
    is_async: bool


def starlette_app() -> Apps:
    """A text page of Starlette, by ASGI messages; users by ``AuthenticationMiddleware``, never asked for."""
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    from paygent_starlette import add_paygent

    async def page(_request: Any) -> PlainTextResponse:
        return PlainTextResponse("page")

    def app() -> Starlette:
        return Starlette(routes=[Route("/page", page)])

    ours = app()
    add_paygent(ours)
    return Apps(_asgi_request(app()), _asgi_request(ours), is_async=True)


def _asgi_request(app: Any) -> Callable[[], Awaitable[None]]:
    """A function that makes one request as an ASGI server does."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def request() -> None:
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/page",
            "raw_path": b"/page",
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"localhost"), (b"accept", b"*/*")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "state": {},
        }
        await app(scope, receive, send)
        if sent[0]["status"] != 200 or sent[-1]["body"] != b"page":
            raise WrongAnswerError(sent)

    return request


def django_app() -> Apps:
    """A text page of Django, by its WSGI handler; users by its sessions and sign-in, never asked for."""
    import django
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import HttpResponse
    from django.test import RequestFactory, override_settings
    from django.urls import path

    if not settings.configured:
        apps = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"]
        settings.configure(INSTALLED_APPS=[*apps, "paygent_django"], SECRET_KEY="-", ROOT_URLCONF=__name__)
        django.setup()
    routes = type("Routes", (), {"urlpatterns": [path("page", lambda _: HttpResponse("page"))]})
    environ = RequestFactory()._base_environ(PATH_INFO="/page")

    class Handler(WSGIHandler):
        class request_class(WSGIHandler.request_class):  # noqa: N801  # Django's name
            urlconf = routes  # whatever the settings of this process name

    def app(*more: str) -> Callable[[], None]:
        middleware = ["sessions.middleware.SessionMiddleware", "auth.middleware.AuthenticationMiddleware"]
        with override_settings(MIDDLEWARE=[*(f"django.contrib.{name}" for name in middleware), *more]):
            handler = Handler()

        def request() -> None:
            response = handler(dict(environ), lambda status, headers: None)
            if response.status_code != 200 or b"".join(response) != b"page":
                raise WrongAnswerError(response)
            response.close()

        return request

    return Apps(app(), app("paygent_django.middleware.PaygentMiddleware"), is_async=False)


def flask_app() -> Apps:
    """A text page of Flask, by WSGI; users by its signed session, never asked for."""
    from flask import Flask
    from werkzeug.test import EnvironBuilder

    from paygent_flask import Paygent

    environ = EnvironBuilder(path="/page").get_environ()

    def app() -> Flask:
        made = Flask(__name__)
        made.secret_key = "-"
        made.add_url_rule("/page", view_func=lambda: "page", endpoint="page")
        return made

    def request_to(app: Flask) -> Callable[[], None]:
        def request() -> None:
            body: Any = app(dict(environ), lambda status, headers: None)
            if b"".join(body) != b"page":
                raise WrongAnswerError(body)
            body.close()

        return request

    ours = app()
    Paygent(ours)
    return Apps(request_to(app()), request_to(ours), is_async=False)


# Name, how to make it, and the target of what the plugin adds.
FRAMEWORKS: list[tuple[str, Callable[[], Apps], str]] = [
    ("Starlette", starlette_app, "≤ 5 µs"),
    ("Flask", flask_app, "≤ 5 µs"),
    ("Django", django_app, "≤ 10 µs"),
]


@benchmark("requests")
def requests(sizes: Sizes) -> Iterator[Row]:
    """A request without an LLM call, through each framework."""
    with paygent():
        for name, make, target in FRAMEWORKS:
            pair = _measured(make(), sizes.calls * ROUNDS_PER_CALL)
            yield pair.row("requests", f"a {name} request without an LLM call", target)


def _measured(apps: Apps, rounds: int) -> Pair:
    if apps.is_async:
        return asyncio.run(in_turn_async(apps.bare, apps.ours, rounds))
    return in_turn(apps.bare, apps.ours, rounds)
