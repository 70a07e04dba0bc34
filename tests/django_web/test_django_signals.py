"""Signals of what the engine decides."""

import asyncio

import pytest
from django.contrib.auth.models import User

from paygent_django import signals


@pytest.fixture
def heard():
    """Connect receivers for the time of a test."""
    connected, seen = [], []

    def connect(signal, receiver=None):
        def keep(**named):
            seen.append(named)

        receiver = receiver or keep
        signal.connect(receiver)
        connected.append((signal, receiver))
        return seen

    yield connect
    for signal, receiver in connected:
        signal.disconnect(receiver)


def all_sent():
    """Wait until the thread beside the loops has sent what was handed to it."""
    signals._beside().submit(int).result(60)


def test_usage_is_told(heard, browser):
    """``usage_recorded`` carries the event of each call and its user."""
    seen = heard(signals.usage_recorded)
    ada = browser("ada")
    ada.get("/plain")
    assert [(named["user_id"], named["event"].model) for named in seen] == [(ada.user_id, "gpt-4o-mini")]


def test_a_limit_is_told(heard, browser):
    """``limit_reached`` carries the decision and whose it is."""
    seen = heard(signals.limit_reached)
    ben = browser("ben", "free")
    assert ben.get("/plain").status_code == 429
    assert [(named["user_id"], named["result"].status) for named in seen] == [(ben.user_id, "hard_gate")]


def test_a_soft_mark_is_told(heard, browser, pg):
    """``soft_gate`` is sent for a call above the soft mark."""
    seen = heard(signals.soft_gate)
    ada = browser("ada")
    pg.record_event(ada.user_id, cost=8.5)
    ada.get("/plain")
    assert {named["result"].status for named in seen} == {"soft_gate"}


def test_a_loaded_user_is_told(heard, browser, pg):
    """``session_started`` carries the state of a user who is loaded."""
    seen = heard(signals.session_started)
    ada = browser("ada")
    pg.reset_user(ada.user_id)
    ada.get("/plain")
    assert ada.user_id in {named["user_id"] for named in seen}


@pytest.mark.parametrize("view", ["plain", "plain-async"])
def test_a_receiver_that_fails_changes_nothing(view, heard, browser, pg, caplog):
    """It is logged; the answer, the charge and the other receivers are as if it were not there."""

    def failing(**named):
        raise RuntimeError("a receiver's own fault")

    heard(signals.usage_recorded, failing)
    seen = heard(signals.usage_recorded)
    ada = browser("ada")
    assert ada.get(f"/{view}").status_code == 200
    all_sent()
    assert len(seen) == 1
    assert pg.get_usage(ada.user_id).period_tokens_total > 0
    assert "a receiver's own fault" in caplog.text


async def test_from_an_event_loop_a_receiver_may_use_the_database(heard, async_browser):
    """From an async view receivers, plain and async, run beside the loop."""
    names = []

    def plain(user_id, **named):
        names.append(User.objects.get(pk=user_id).username)

    async def asynchronous(user_id, **named):
        names.append((await User.objects.aget(pk=user_id)).username)

    heard(signals.usage_recorded, plain)
    heard(signals.usage_recorded, asynchronous)
    assert (await (await async_browser("ada")).get("/plain-async")).status_code == 200
    await asyncio.to_thread(all_sent)
    assert names == ["ada", "ada"]


def test_a_new_paygent_is_followed(heard, browser, pg):
    """A project that initialises Paygent again is heard from the next request on."""
    from paygent import Paygent

    seen = heard(signals.usage_recorded)
    ada = browser("ada")
    ada.get("/plain")
    second = Paygent.init(ledger="memory://")
    try:
        ada.get("/plain")
    finally:
        second.shutdown()
    assert len(seen) == 2


def test_what_nobody_receives_costs_nothing(browser, pg):
    """Without a receiver the engine is given no callback, and builds no event for one."""
    browser("ada").get("/plain")
    callbacks = pg._meter.callbacks
    assert [callbacks.usage, callbacks.soft_gate, callbacks.hard_gate, callbacks.session_start] == [
        [],
        [],
        [],
        [],
    ]
