"""``get_plan`` before the first call: who judges a user, or shows him, goes by the plan that it names."""

from __future__ import annotations

import asyncio

import flask
import httpx
import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from paygent import PaygentLimitExceeded, PlanConfig
from paygent.context import as_payer
from paygent.web import verbs
from paygent.web.exemptions import Place
from paygent.web.options import WebOptions
from paygent.web.plugin import WebPlugin
from paygent_flask import Paygent as FlaskPaygent
from paygent_starlette import add_paygent, check_limits, me_route, require_budget


class Site:
    """One app of each framework; ``plan`` is what its own books say of every user, for ``get_plan``."""

    def __init__(self, kind):
        self.plan = "free"
        make = {"starlette": self._starlette, "fastapi": self._fastapi, "flask": self._flask}[kind]
        self.get = make(get_user_id=lambda request: "ben", get_plan=lambda request: self.plan)

    def _starlette(self, **options):
        @require_budget()
        async def view(request):
            return PlainTextResponse("ran")

        app = Starlette(routes=[Route("/", view), me_route()])
        add_paygent(app, **options)
        return self._asked(app)

    def _fastapi(self, **options):
        app = FastAPI(routes=[me_route()])
        app.get("/", dependencies=[Depends(check_limits())])(lambda: "ran")
        add_paygent(app, **options)
        return self._asked(app)

    def _flask(self, **options):
        app = flask.Flask("site")
        paygent = FlaskPaygent(app, **options)
        app.register_blueprint(paygent.blueprint())
        app.add_url_rule("/", "view", paygent.require_budget()(lambda: "ran"))

        def get(path):
            answer = app.test_client().get(path)
            return answer.status_code, answer.json

        return get

    @staticmethod
    def _asked(app):
        async def get(path):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
                return await client.get(path)

        def got(path):
            answer = asyncio.run(get(path))
            return answer.status_code, answer.json() if answer.text != "ran" else None

        return got


@pytest.fixture(params=["starlette", "fastapi", "flask"])
def site(request, pg):
    return Site(request.param)


def test_an_upgrade_in_the_apps_own_books_opens_the_gate(site):
    """A spent user whom ``get_plan`` puts on a better plan passes a guarded view, without a call before."""
    assert site.get("/")[0] == 429
    site.plan = "pro"
    assert [site.get("/")[0] for _ in range(2)] == [200, 200]


def test_a_downgrade_in_the_apps_own_books_closes_the_gate(site, pg):
    """A user of a better plan is refused once ``get_plan`` puts him on one that is spent."""
    pg.assign_plan("ben", "pro")
    assert site.get("/")[0] == 429


def test_what_a_user_sees_of_himself_agrees(site):
    """``/paygent/me`` shows the plan by which the next call is judged, whichever is asked first."""
    shown = [site.get("/paygent/me")[1]]
    site.plan = "pro"
    shown += [site.get("/paygent/me")[1]]
    assert [(me["plan"]["name"], me["state"]) for me in shown] == [("free", "hard_gate"), ("pro", "ok")]


def test_a_plan_that_nobody_knows_changes_nothing(site):
    """A name without a plan leaves the user where he is, in the gate and in what he sees."""
    site.plan = "nonsense"
    assert site.get("/")[0] == 429
    assert site.get("/paygent/me")[1]["plan"]["name"] == "free"


# --- in one process, by the verbs themselves --------------------------------------------------------------


@pytest.fixture
def demand(pg):
    """Return a function that demands a budget in a request of a user whose plan ``get_plan`` names."""

    def demand(user, plan):
        slot = WebPlugin(
            WebOptions(get_plan=lambda request: plan),
            default_user=lambda request: request,
            place_of=lambda request: Place("/"),
        ).open(user)
        with as_payer(slot):
            return verbs.demand_budget()

    return demand


def test_limits_of_a_users_own_stay(demand, pg):
    """Who is on the named plan keeps the limits that were given to him alone."""
    pg.start_session("ada", "pro", PlanConfig(max_spend_per_period=2.0))
    with pytest.raises(PaygentLimitExceeded) as caught:
        demand("ada", "pro")
    assert caught.value.refusal.limit == 2.0


def test_a_user_is_put_on_his_plan_once(demand, pg, monkeypatch):
    """A user who is on the plan already costs no write, however often he asks."""
    demand("ben", "pro")
    written = []
    monkeypatch.setattr(pg._meter.changes, "put", written.append)
    for _ in range(3):
        demand("ben", "pro")
    assert written == []


def test_a_user_who_is_new_is_judged_by_the_plan_that_is_named(demand):
    """A user of whom the ledger knows no plan does not pass by the default one."""
    with pytest.raises(PaygentLimitExceeded) as caught:
        demand("new", "free")
    assert caught.value.refusal.plan == "free"


def test_without_a_ledger_nobody_is_moved(demand, pg):
    """While the ledger is away the gate judges as it judges calls: by what is known here."""
    with pytest.raises(PaygentLimitExceeded):
        demand("ben", None)
    pg._meter.degraded = True
    with pytest.raises(PaygentLimitExceeded):
        demand("ben", "pro")


def test_a_fault_of_ours_leaves_the_gate_to_the_plan_before(demand, pg, monkeypatch, caplog):
    """Where a user cannot be put on his plan, the log says so and the view goes on by the present one."""

    def broken(change):
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(pg._meter.changes, "put", broken)
    assert demand("ada", "gpt").status == "ok"
    assert "putting a user on his plan" in caplog.text
