"""The dashboard mounted in real apps: who gets in, and that it is the same in each."""

import asyncio
import threading
from urllib.parse import quote

import fastapi
import flask
import httpx
import pytest
from dashboard_world import ODD, SCRIPT
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.routing import Mount
from starlette.testclient import TestClient

import paygent_flask
import paygent_starlette
from paygent.dashboard.board import Dashboard


class Door:
    """An app with the dashboard below ``/ops/paygent``; ``get`` returns status, headers and text."""

    def __init__(self, kind, pg, authorize):
        self.kind = kind
        if kind == "flask":
            app = flask.Flask("shop")
            app.register_blueprint(
                paygent_flask.dashboard(pg, authorize=authorize), url_prefix="/ops/paygent"
            )
            app.errorhandler(404)(lambda error: ("the shop has no such page", 404))
            self._client = app.test_client()
            return
        views = paygent_starlette.dashboard(pg, authorize=authorize)
        if kind == "fastapi":
            app = fastapi.FastAPI()
            app.mount("/ops/paygent", views)
        else:
            app = Starlette(routes=[Mount("/ops/paygent", views)])
        app.exception_handlers[404] = lambda request, error: PlainTextResponse(
            "the shop has no such page", 404
        )
        self._client = TestClient(app)

    def get(self, address, method="GET", **headers):
        if self.kind == "flask":
            answer = self._client.open(address, method=method, headers=headers, follow_redirects=True)
            return answer.status_code, dict(answer.headers), answer.text
        answer = self._client.request(method, address, headers=headers)
        return answer.status_code, answer.headers, answer.text


@pytest.fixture(params=["starlette", "fastapi", "flask"])
def kind(request):
    return request.param


def is_boss(request):
    return request.headers.get("x-who") == "boss"


async def is_boss_async(request):
    await asyncio.sleep(0)
    return request.headers.get("x-who") == "boss"


@pytest.mark.parametrize("make", [paygent_starlette.dashboard, paygent_flask.dashboard])
@pytest.mark.parametrize("given", [{}, {"authorize": None}, {"authorize": True}])
def test_without_authorize_the_app_does_not_start(pg, make, given):
    """Leaving the check out, or giving something that is no function, raises where the app is made."""
    with pytest.raises(TypeError, match="authorize"):
        make(pg, **given)


@pytest.mark.parametrize("authorize", [is_boss, is_boss_async])
def test_who_is_not_allowed_sees_what_is_not_there(company, kind, authorize):
    """Without the app's yes every address and method has the answer of one that does not exist."""
    door = Door(kind, company, authorize)
    expected = door.get("/ops/elsewhere")
    for address in ("", "/", "/users", "/plans", "/user?id=a", "/icon.svg", "/nothing"):
        status, _, text = door.get("/ops/paygent" + address)
        assert (status, text) == (404, expected[2])
    assert door.get("/ops/paygent/", "POST")[0] == 404


@pytest.mark.parametrize("authorize", [is_boss, is_boss_async])
def test_who_is_allowed_gets_every_page(company, kind, authorize):
    """With the app's yes the pages are served below the place where they are mounted."""
    door = Door(kind, company, authorize)
    for address in ("", "/", "/?days=7", "/users", "/plans", f"/user?id={quote(ODD, safe='')}"):
        status, headers, text = door.get("/ops/paygent" + address, **{"x-who": "boss"})
        assert status == 200
        assert headers["cache-control"] == "no-store"
        assert 'href="/ops/paygent/users"' in text
    assert door.get("/ops/paygent/", "POST", **{"x-who": "boss"})[0] == 405
    assert door.get("/ops/paygent/nothing", **{"x-who": "boss"})[0] == 404


@pytest.mark.parametrize("user_id", [ODD, SCRIPT, "..", "/", "%2e", "a b+c", "\x00", '"><img src=x>'])
def test_any_user_id_comes_through_the_address(company, kind, user_id):
    """The page of a user names exactly him, and his id stays text."""
    door = Door(kind, company, is_boss)
    status, _, text = door.get(f"/ops/paygent/user?id={quote(user_id, safe='')}", **{"x-who": "boss"})
    assert status == 200
    shown = user_id.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    assert f'<bdi class="name">{shown}</bdi>' in text
    assert "<script>" not in text
    assert "<img src=x>" not in text


def test_a_check_that_raises_goes_to_the_app(company, kind):
    """The app's own way of refusing, such as a 403 or a redirect to the login, is left to it."""

    def refuse(request):
        if kind == "flask":
            flask.abort(403)
        raise HTTPException(403)

    assert Door(kind, company, refuse).get("/ops/paygent/")[0] == 403


def test_a_fault_in_the_check_lets_nobody_in(company, kind):
    """A check that breaks is an error of the app, never a page."""

    def broken(request):
        raise KeyError("role")

    door = Door(kind, company, broken)
    if kind == "flask":
        assert door.get("/ops/paygent/")[0] == 500
    else:
        with pytest.raises(KeyError):
            door.get("/ops/paygent/")


def test_a_check_that_forgets_to_return_lets_nobody_in(company, kind):
    """``None`` is no yes."""
    assert Door(kind, company, lambda request: None).get("/ops/paygent/")[0] == 404


def test_a_plain_function_that_returns_a_coroutine_is_awaited_or_refused(company, kind):
    """Under ASGI it is awaited; under Flask nobody would wait for it, so it lets nobody in."""

    def plain(request):
        return is_boss_async(request)

    door = Door(kind, company, plain)
    assert door.get("/ops/paygent/", **{"x-who": "boss"})[0] == (404 if kind == "flask" else 200)


def test_the_flask_check_reads_the_session(company):
    """The check runs in the request's context, so that the app's session and login are there."""
    app = flask.Flask("shop")
    app.secret_key = "s"
    app.register_blueprint(
        paygent_flask.dashboard(company, authorize=lambda r: flask.session.get("role") == "boss")
    )
    client = app.test_client()
    assert client.get("/paygent/").status_code == 404
    with client.session_transaction() as session:
        session["role"] = "boss"
    assert client.get("/paygent/").status_code == 200


def test_flask_pages_know_a_prefix_of_the_server(company):
    """Behind a server that mounts the app elsewhere, links begin with that place."""
    app = flask.Flask("shop")
    app.register_blueprint(paygent_flask.dashboard(company, authorize=lambda r: True))
    answer = app.test_client().get("/paygent/", environ_overrides={"SCRIPT_NAME": "/shop"})
    assert 'href="/shop/paygent/users"' in answer.text


async def test_the_views_serve_alone(company):
    """Without any app around them the views are served from the root, and refuse with a plain 404."""
    views = paygent_starlette.dashboard(company, authorize=is_boss)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(views), base_url="http://ops") as client:
        page = await client.get("/users", headers={"x-who": "boss"})
        assert (page.status_code, 'href="/plans"' in page.text) == (200, True)
        refused = await client.get("/users")
        assert (refused.status_code, refused.text) == (404, "Not Found")


async def test_a_page_never_holds_up_the_event_loop(company, monkeypatch):
    """While the store adds up, other requests of the same process are served."""
    asked, go_on = threading.Event(), threading.Event()
    plain = Dashboard.answer

    def slow(self, *request):
        asked.set()
        assert go_on.wait(10)
        return plain(self, *request)

    monkeypatch.setattr(Dashboard, "answer", slow)
    views = paygent_starlette.dashboard(company, authorize=is_boss)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(views), base_url="http://ops") as client:
        page = asyncio.create_task(client.get("/", headers={"x-who": "boss"}))
        assert await asyncio.to_thread(asked.wait, 10)
        assert (await client.get("/")).status_code == 404
        go_on.set()
        assert (await page).status_code == 200


def test_a_websocket_is_turned_away(company):
    """Nothing is spoken here but HTTP."""
    app = Starlette(routes=[Mount("/ops", paygent_starlette.dashboard(company, authorize=lambda r: True))])
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), TestClient(app).websocket_connect("/ops/"):
        pass
