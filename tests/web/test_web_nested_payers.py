"""Blocks of other users within a request: whoever pays there, the request's own rules hold."""

from __future__ import annotations

import asyncio

import pytest

from paygent import Paygent, PaygentLimitExceeded, paygent_context, paygent_track
from paygent.context import as_payer, current_payer
from paygent.core.usage import Usage
from paygent.web.exemptions import Place
from paygent.web.options import WebOptions
from paygent.web.plugin import WebPlugin


def ask():
    """One LLM call of whoever pays here."""
    meter = Paygent.get_instance()._meter
    with meter.call(meter.payer(None), "openai", "chat", "gpt-4o-mini", 4, 10) as call:
        call.finish(Usage(1, 1))


def context(user):
    with paygent_context(user):
        ask()


def track(user):
    paygent_track(user_id=user)(ask)()


def track_param(user):
    paygent_track(user_id_param="owner")(lambda owner: ask())(user)


def track_async(user):
    async def view():
        ask()

    asyncio.run(paygent_track(user_id=user)(view)())


def track_generator(user):
    def view():
        ask()
        yield

    list(paygent_track(user_id=user)(view)())


@pytest.fixture(params=[context, track, track_param, track_async, track_generator])
def call_for(request):
    """Make one call for another user than the request's, in each way that names one."""
    return request.param


@pytest.fixture
def serve(pg):
    """Run a function as the view of a request of ``ada``; returns its slot."""

    def served(view, **options):
        plugin = WebPlugin(
            WebOptions(**options), default_user=lambda request: request, place_of=lambda request: Place("/")
        )
        slot = plugin.open("ada")
        with as_payer(slot):
            view()
        return slot

    return served


def test_a_trial_run_refuses_nobody(call_for, serve, pg):
    """With ``report_only`` a call for another user beyond his limit runs too, and is reported."""
    reports = []
    pg.on_hard_gate(reports.append)
    slot = serve(lambda: call_for("ben"), report_only=True)
    assert (slot.calls, slot.tokens, len(reports)) == (1, 2, 1)


def test_a_request_counts_the_calls_it_makes_for_others(call_for, serve, pg):
    """Calls, tokens and cost of a request include those that another user pays for; he alone pays."""
    slot = serve(lambda: call_for("eve"))
    assert (slot.calls, slot.tokens) == (1, 2)
    assert [pg.get_usage(user).period_tokens_total for user in ("ada", "eve")] == [0, 2]


def test_a_request_knows_of_a_refusal_of_another_user(call_for, serve):
    """A refusal met for another user is the request's, so that a 500 made of it is found out."""

    def view():
        with pytest.raises(PaygentLimitExceeded):
            call_for("ben")

    assert isinstance(serve(view).refusal, PaygentLimitExceeded)


def test_a_held_start_is_let_go_by_a_call_for_another(call_for, serve):
    """Who waits for the first call of a request to be admitted hears of one that another user pays for."""
    told = []

    def view():
        current_payer().tally.on_admitted = lambda: told.append(1)
        call_for("eve")

    serve(view)
    assert told == [1]


def test_outside_of_a_request_nothing_is_taken_over(call_for, pg):
    """Without a request around, a block refuses as it always does."""
    with pytest.raises(PaygentLimitExceeded):
        call_for("ben")
