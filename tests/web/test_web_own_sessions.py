"""``get_session_id`` and the guards: a request is not judged by a session that is not its own."""

import flask
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from paygent import PlanConfig
from paygent_flask import Paygent as FlaskPaygent
from paygent_starlette import add_paygent, require_budget


@pytest.fixture(params=["starlette", "flask"])
def status(request, pg):
    """The status of a guarded request of a user whose session outside of the app is spent."""
    pg.configure_plan("default", PlanConfig(max_spend_per_period=2.0, max_spend_per_session=1.0))
    pg.record_event("dora", cost=1.0)
    options = {"get_user_id": lambda _: "dora", "get_session_id": lambda asked: asked.headers.get("x-chat")}

    def starlette(chat, usd):
        @require_budget(usd)
        async def view(_request):
            return PlainTextResponse("ran")

        app = Starlette(routes=[Route("/", view)])
        add_paygent(app, **options)
        return TestClient(app).get("/", headers=chat).status_code

    def of_flask(chat, usd):
        app = flask.Flask("site")
        paygent = FlaskPaygent(app, **options)
        app.add_url_rule("/", "view", paygent.require_budget(usd)(lambda: "ran"))
        return app.test_client().get("/", headers=chat).status_code

    return {"starlette": starlette, "flask": of_flask}[request.param]


def test_a_session_of_its_own_opens_the_guard(status):
    """What a nightly job spent of its session closes no chat."""
    assert status({"x-chat": "chat-2"}, 0.0) == 200


def test_without_one_the_session_that_is_spent_closes_it(status):
    """A request that names none is in the one that is spent."""
    assert status({}, 0.0) == 429


def test_the_period_is_everybodys(status):
    """What is left of the period closes the guard of a request with a session of its own, too."""
    assert status({"x-chat": "chat-2"}, 1.5) == 429
