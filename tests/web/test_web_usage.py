"""What users may see of themselves, and what views say of their requests, with a real engine behind."""

import asyncio
import json
import threading
from datetime import datetime, timezone

import pytest

from paygent import BillingPeriod, Paygent, PaygentLimitExceeded, PlanConfig
from paygent.context import as_payer
from paygent.web import verbs
from paygent.web.exemptions import Place
from paygent.web.limit_response import LimitResponse
from paygent.web.options import WebOptions
from paygent.web.plugin import WebPlugin
from paygent.web.usage import me, standing, usage_headers


def plugin_of(**options):
    return WebPlugin(
        WebOptions(**options),
        default_user=lambda request: request,
        place_of=lambda request: Place("/"),
    )


@pytest.fixture
def serve(pg):
    """Run a function as the view of a request of *user*; returns its slot."""

    def served(user, view, **options):
        slot = plugin_of(**options).open(user)
        with as_payer(slot):
            view()
        return slot

    return served


# --- GET …/paygent/me -------------------------------------------------------------------------------------


def test_a_user_sees_where_he_stands(pg):
    """Plan, used, limit, rest, percentage, reset and state of the billing period."""
    pg.assign_plan("ada", "pro", BillingPeriod(start="2026-01-01T00:00:00Z", end="2099-01-01T00:00:00Z"))
    pg.record_event("ada", cost=1.0)
    assert me(pg, "ada") == {
        "plan": {"name": "pro", "label": "Pro"},
        "used": "1.00",
        "limit": "10.00",
        "remaining": "9.00",
        "percent": 10.0,
        "resets_at": "2099-01-01T00:00:00Z",
        "state": "ok",
    }


@pytest.mark.parametrize(("user", "state"), [("ada", "ok"), ("eve", "soft_gate"), ("ben", "hard_gate")])
def test_the_state_is_that_of_the_gate(user, state, pg):
    """``state`` is what the gate would say to the next call."""
    assert me(pg, user)["state"] == state


def test_an_unlimited_plan_has_no_limit(pg):
    """Where there is no limit, limit, rest and percentage are null, never zero."""
    shown = me(pg, "gil")
    assert (shown["limit"], shown["remaining"], shown["percent"]) == (None, None, None)


def test_amounts_can_be_kept_back(pg):
    """``expose_amounts=False`` leaves a percentage and no amounts."""
    shown = me(pg, "ada", expose_amounts=False)
    assert (shown["used"], shown["limit"], shown["remaining"], shown["percent"]) == (None, None, None, 25.0)


def test_a_disabled_user_is_told_so(pg):
    """Where metering is switched off for a user, the state says so."""
    pg.get_user_state("ada").sdk_enabled = False
    assert standing(pg, "ada").state == "disabled"


def test_nobody_is_asked_to_sign_in(pg):
    """Without a user the answer is the 401 problem."""
    answer = plugin_of().me(None)
    assert (answer.status, json.loads(answer.body)["code"]) == (401, "no_user")


def test_the_answer_is_not_to_be_cached(pg):
    """What is true of one user at one moment is stored nowhere."""
    answer = plugin_of().me("ada")
    assert (answer.status, dict(answer.headers)["cache-control"]) == (200, "no-store")
    assert json.loads(answer.body)["used"] == "2.50"


def test_a_ledger_that_is_away_is_a_503(pg):
    """Where no ledger has spoken of a user, nothing is made up."""
    pg._meter.degraded = True
    assert plugin_of().me("nobody-yet-seen").status == 503


# --- usage headers ----------------------------------------------------------------------------------------


def test_the_headers_say_what_is_used(pg):
    """Plan, used, limit, rest and reset; a warning only near the end."""
    headers = usage_headers(pg, "ada")
    reset = datetime.fromisoformat(headers.pop("Paygent-Reset").replace("Z", "+00:00"))
    assert headers == {
        "Paygent-Plan": "pro",
        "Paygent-Used": "2.50",
        "Paygent-Limit": "10.00",
        "Paygent-Remaining": "7.50",
    }
    assert reset > datetime.now(timezone.utc)
    assert (reset.day, reset.hour) == (1, 0)


def test_the_warning_is_a_percentage(pg):
    """From the soft mark on, ``Paygent-Warning`` is the share used in per cent."""
    assert usage_headers(pg, "eve")["Paygent-Warning"] == "86"


def test_headers_hold_no_amounts_that_are_kept_back(pg):
    """``expose_amounts=False`` leaves plan, reset and warning."""
    assert set(usage_headers(pg, "eve", expose_amounts=False)) == {
        "Paygent-Plan",
        "Paygent-Reset",
        "Paygent-Warning",
    }


def test_a_plans_name_cannot_break_a_header(pg):
    """What a header cannot hold is replaced."""
    pg.configure_plan("für\r\nalle", PlanConfig())
    pg.assign_plan("ada", "für\r\nalle")
    standing(pg, "ada", fresh=True)
    assert usage_headers(pg, "ada")["Paygent-Plan"] == "f?r??alle"


def test_headers_need_a_call_and_the_option(serve):
    """A response has headers only with the option, and where the request had its user looked up."""
    for option, view, expected in (
        (True, lambda: Paygent.get_instance().record_event(cost=0.1), True),
        (True, lambda: None, False),
        (False, lambda: Paygent.get_instance().record_event(cost=0.1), False),
    ):
        slot = serve("ada", view, usage_headers=option)
        assert bool(slot.plugin.headers(slot)) is expected


# --- what the calls of a request came to ------------------------------------------------------------------


def test_a_request_knows_what_its_calls_came_to(serve, pg):
    """Cost, calls and tokens are those of this request and of no other."""
    plan = PlanConfig(cost_rates={"m": {"input": 0.5, "output": 1.0}})
    pg.configure_plan("pro", plan)
    slot = serve("ada", lambda: pg.record_event(model="m", input_tokens=1000, output_tokens=500))
    assert (slot.user_id, slot.cost, slot.calls, slot.tokens) == ("ada", 1.0, 1, 1500)


def test_a_request_warns_near_the_limit(serve, pg):
    """``warning`` is a sentence once a call of the request met or crossed the soft mark."""
    assert serve("ada", lambda: pg.record_event(cost=0.1)).warning is None
    slot = serve("ada", lambda: pg.record_event(cost=6.0))
    assert slot.warning.startswith("Approaching the limit: $8.60 of $10.00 used")


def test_calls_on_many_threads_are_all_counted(serve, pg):
    """No posting of one request is lost between threads."""
    slot = plugin_of().open("ada")

    def record():
        with as_payer(slot):
            for _ in range(200):
                pg.record_event(cost=0.001)

    threads = [threading.Thread(target=record) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (slot.calls, round(slot.cost, 9)) == (800, 0.8)


# --- the verbs --------------------------------------------------------------------------------------------


def record():
    Paygent.get_instance().record_event(cost=0.25)


def test_an_exempt_view_is_not_metered(serve, pg):
    """Calls of an exempt view pass uncounted."""
    serve("ada", verbs.exempt(record))
    assert pg.get_usage("ada").period_cost == 2.5


def test_a_tagged_view_notes_its_tags(serve, pg):
    """Tags stand in the metadata of each event of the request."""
    seen = []
    pg.on_usage(seen.append)
    serve("ada", verbs.tag(feature="chat", tier=1)(record))
    assert seen[0].metadata == {"feature": "chat", "tier": 1}


def test_an_async_view_stays_one():
    """Decorated async views are awaited as before, under their own names."""

    @verbs.exempt
    @verbs.tag(feature="chat")
    @verbs.require_budget()
    async def view():
        return "done"

    assert asyncio.run(view()) == "done"
    assert view.__name__ == "view"


@pytest.mark.parametrize("user", ["ada", "eve", "gil", "sue", None])
def test_a_user_with_room_passes(user, serve):
    """A view that requires a budget runs for a user whose gate is open, and for nobody."""
    ran = []
    serve(user, verbs.require_budget()(lambda: ran.append(user)))
    assert ran == [user]


@pytest.mark.parametrize(
    ("user", "usd", "model", "code", "unit"),
    [
        ("ben", 0, None, "period_spend", "usd"),
        ("eve", 2, None, "period_spend", "usd"),
        ("sue", 2, None, "session_spend", "usd"),
        ("gil", 0, "o9", "model_not_in_plan", "tokens"),
    ],
)
def test_a_user_without_room_is_refused_before_the_view(user, usd, model, code, unit, serve, pg):
    """A spent plan, too little left, or a model not in the plan: the view does not run, the 429 is whole."""
    if user == "sue":
        pg.record_event("sue", cost=0.5)
    with pytest.raises(PaygentLimitExceeded) as caught:
        serve(user, verbs.require_budget(usd, model=model)(lambda: pytest.fail("it ran")))
    refusal = caught.value.refusal
    assert (refusal.code, refusal.unit, refusal.user_id) == (code, unit, user)
    assert refusal.plan
    assert (refusal.resets_at is None) is (code == "model_not_in_plan")


def test_a_user_without_a_plan_is_told_to_choose_one(serve):
    """With ``init(no_plan="block")`` the refusal's code is ``no_plan``."""
    Paygent.init(ledger="memory://", no_plan="block", auto_instrument=False)
    with pytest.raises(PaygentLimitExceeded) as caught:
        serve("new", verbs.require_budget()(lambda: None))
    assert caught.value.refusal.code == "no_plan"


def test_nobody_may_be_refused_before_the_view(serve):
    """With ``anonymous="block"`` a view that requires a budget answers nobody with ``no_user``."""
    with pytest.raises(PaygentLimitExceeded) as caught:
        serve(None, verbs.require_budget()(lambda: None), anonymous="block")
    assert caught.value.refusal.code == "no_user"


def test_reporting_only_lets_the_view_run(serve):
    """With ``report_only`` a view that requires a budget runs for everybody."""
    ran = []
    serve("ben", verbs.require_budget()(lambda: ran.append(1)), report_only=True)
    assert ran == [1]


def test_outside_of_a_request_the_verbs_do_nothing(pg):
    """Decorated functions may be called from anywhere."""
    assert verbs.exempt(verbs.tag(a=1)(verbs.require_budget(5)(lambda: "done")))() == "done"


# --- the plugin's own life --------------------------------------------------------------------------------


def test_an_app_without_init_gets_one_from_the_options():
    """The first request initialises Paygent with the option *paygent*."""
    plugin = plugin_of(paygent={"ledger": "memory://", "auto_instrument": False})
    assert Paygent.get_instance() is None
    plugin.open("ada")
    Paygent.get_instance().shutdown()


def test_an_apps_own_init_wins(pg):
    """Where the app has called ``init``, the plugin leaves it alone."""
    plugin_of(paygent={"ledger": "sqlite:////nowhere/at/all.db"}).open("ada")
    assert Paygent.get_instance() is pg


def test_a_plugin_does_not_revive_what_was_shut_down(pg):
    """A request that comes in while the app stops does not initialise anew."""
    plugin = plugin_of()
    plugin.open("ada")
    pg.shutdown()
    plugin.open("ada")
    assert plugin.pg() is None


def test_a_failing_init_is_logged_and_harms_no_request(caplog):
    """Where ``init`` cannot be, requests are served unmetered, and the log says so once."""
    plugin = plugin_of(paygent={"busy_timeout": -1})
    for _ in range(2):
        assert plugin.open("ada").user_id == "ada"
    assert caplog.text.count("Paygent.init() failed") == 1


@pytest.mark.parametrize("is_async", [False, True])
def test_a_request_can_end_with_a_flush(is_async):
    """With ``init(flush_on_request_end=True)`` a request's events are in the ledger when it is done."""
    pg = Paygent.init(ledger="memory://", flush_on_request_end=True, auto_instrument=False)
    plugin = plugin_of()
    slot = plugin.open("ada")
    with as_payer(slot):
        pg.record_event(cost=1.0)
    assert pg.pending_events == 1
    if is_async:
        asyncio.run(plugin.finish_async(slot))
    else:
        plugin.finish(slot)
    assert pg.pending_events == 0
    pg.shutdown()


def refused(pg):
    with pytest.raises(PaygentLimitExceeded) as caught:
        pg.wrap(lambda: None, user_id="ben", model="gpt-4o")
    return caught.value


def test_the_answer_can_be_replaced(pg):
    """What ``on_limit`` returns is answered; it is given the request and the problem object."""
    plugin = plugin_of(on_limit=lambda request, problem: (request, problem["code"]))
    assert plugin.refuse(refused(pg), {}, "request") == ("request", "period_spend")


@pytest.mark.parametrize("on_limit", [lambda request, problem: None, lambda request, problem: 1 / 0])
def test_else_the_usual_answer_is_sent(on_limit, pg):
    """An ``on_limit`` that returns nothing, or raises, leaves the usual answer."""
    answer = plugin_of(on_limit=on_limit).refuse(refused(pg), {}, None)
    assert isinstance(answer, LimitResponse)
    assert answer.status == 429


async def test_on_limit_may_be_async(pg):
    """An async ``on_limit`` is awaited."""

    async def on_limit(request, problem):
        return problem["status"]

    assert await plugin_of(on_limit=on_limit).refuse_async(refused(pg), {}, None) == 429
