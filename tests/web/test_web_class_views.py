"""The verbs on views that are classes: Starlette's endpoints, Flask's and Quart's views."""

from __future__ import annotations

import asyncio

import flask
import flask.views
import httpx
import pytest
import quart
import quart.views
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.responses import JSONResponse
from starlette.routing import Route

from paygent.web import verbs
from paygent.web.request import current_slot
from paygent_flask import Paygent as FlaskPaygent
from paygent_starlette import add_paygent


def seen():
    """What the verbs have said of the running request."""
    slot = current_slot()
    return {"exempt": slot.exempt, "metadata": slot.metadata}


class Endpoint(HTTPEndpoint):
    async def get(self, request):
        return JSONResponse(seen())


class PlainEndpoint(HTTPEndpoint):
    def get(self, request):
        return JSONResponse(seen())


class Methods(flask.views.MethodView):
    def get(self):
        return seen()


class AsyncMethods(flask.views.MethodView):
    async def get(self):
        return seen()


class AsyncView(flask.views.View):
    async def dispatch_request(self):
        return seen()


class QuartMethods(quart.views.MethodView):
    async def get(self):
        return seen()


VIEWS = [Endpoint, PlainEndpoint, Methods, AsyncMethods, AsyncView, QuartMethods]


def got(view, decorate):
    """The answer of an app with one *view*, decorated, to ``ben``, whose plan is spent."""
    decorated = decorate(type(view.__name__, (view,), {}))  # the class itself stays as it is
    if issubclass(view, HTTPEndpoint):
        app = Starlette(routes=[Route("/", decorated)])
        add_paygent(app, get_user_id=lambda request: "ben")
        return asyncio.run(asked(app))
    if issubclass(view, quart.views.View):
        app = quart.Quart("app")
        add_paygent(app, get_user_id=lambda request: "ben")
        app.add_url_rule("/", view_func=decorated.as_view("view"))
        return asyncio.run(asked(app))
    app = flask.Flask("app")
    FlaskPaygent(app, get_user_id=lambda request: "ben")
    app.add_url_rule("/", view_func=decorated.as_view("view"))
    with httpx.Client(transport=httpx.WSGITransport(app), base_url="http://app") as client:
        return client.get("/")


async def asked(app):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
        return await client.get("/")


@pytest.fixture(params=VIEWS, ids=lambda view: view.__name__)
def view(request, pg):
    return request.param


def test_exempt_and_tag_decorate_classes(view):
    """What is said of a class is said of each request that it serves."""
    answer = got(view, lambda decorated: verbs.exempt(verbs.tag(feature="chat")(decorated)))
    assert (answer.status_code, answer.json()) == (200, {"exempt": True, "metadata": {"feature": "chat"}})


def test_a_budget_is_demanded_of_classes(view):
    """``require_budget`` on a class refuses a spent user before any of its methods runs."""
    answer = got(view, verbs.require_budget())
    assert (answer.status_code, answer.json()["code"]) == (429, "period_spend")


def test_a_decorated_class_stays_itself(view):
    """The class is changed in place, as frameworks look at its name, its bases and its methods."""
    own = type(view.__name__, (view,), {})
    assert verbs.require_budget()(own) is own


@pytest.mark.parametrize("decorate", [verbs.exempt, verbs.tag(a=1), verbs.require_budget()])
def test_a_class_that_serves_nothing_is_refused_when_decorated(decorate):
    """A class without a method that serves requests is met with a TypeError that says what to decorate."""

    class Controller:
        def get(self):
            """Serve something, as the framework will find out."""

    with pytest.raises(TypeError, match="Controller is no view that serves requests: decorate its methods"):
        decorate(Controller)
