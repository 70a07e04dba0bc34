"""One instance takes over from another while calls are at the gate: each is gated by one of them."""

import asyncio

import pytest
from engine_values import ANSWER, EXACT, call

from paygent import Paygent, PaygentLimitExceeded, PlanConfig
from paygent.meter import active


def ask(pg):
    return call(pg)


def ask_async(pg):
    async def answer():
        return ANSWER

    return asyncio.run(pg.awrap(answer, user_id="ada", **EXACT))


@pytest.fixture
def pg(init):
    """An instance whose default plan has nothing left to spend."""
    pg = init()
    pg.configure_plan("default", PlanConfig(max_spend_per_period=0.0))
    return pg


@pytest.mark.parametrize("ask", [ask, ask_async])
def test_a_call_at_the_gate_is_gated_by_the_next_instance(pg, init, ask):
    """An instance that closes after it let a call into its gate hands it to the one that took over."""
    boot, made = pg._meter.boot, []

    def replaced_now():
        if not made:
            made.append(None)
            made.append(init())
        return boot()

    pg._meter.gate._boot = replaced_now
    with pytest.raises(PaygentLimitExceeded):
        ask(pg)
    assert Paygent.get_instance() is made[1]
    assert pg.queue_stats["last_error"] is None


def test_a_call_follows_through_instances_that_are_closed_meanwhile(pg, init, monkeypatch):
    """Where the one that took over is replaced, too, in that moment, the call goes to the one after it."""
    second, third = init(), init()
    seen = [second._meter]
    monkeypatch.setattr(active, "get", lambda: seen.pop() if seen else third._meter)
    with pytest.raises(PaygentLimitExceeded):
        ask(pg)


def test_a_call_after_the_last_shutdown_passes(pg, init):
    """Nobody took over: the call passes, and nothing loops."""
    pg.shutdown()
    assert ask(pg) is ANSWER
