"""Calls of one process at a cap: which limits hold, who waits, and what a caller who waited in vain hears."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from engine_values import ANSWER, EXACT, call, plan

from paygent import PaygentLimitExceeded

CALLS = 100


def until_refused(pg, **changes):
    """Call until the plan is spent; returns how many calls were made. Busy is no reason to stop."""
    made = 0
    while made <= CALLS:
        try:
            call(pg, **changes)
            made += 1
        except PaygentLimitExceeded as refused:
            if not refused.retryable:
                return made
    return made


def test_sessions_and_models_are_capped_too(init):
    """The cap on a session and on a model's tokens hold under threads as that on the period does."""
    pg = init(ledger="memory://")
    pg.configure_plan("s", plan(10_000, max_spend_per_session=0.5 + 1e-9))
    pg.configure_plan("m", plan(10_000, model_limits={"m": {"max_tokens_per_period": 300}}))
    pg.assign_plan("ada", "s")
    pg.assign_plan("bob", "m")
    with ThreadPoolExecutor(16) as threads:
        ada = sum(threads.map(lambda _: until_refused(pg, user="ada"), range(8)))
        bob = sum(threads.map(lambda _: until_refused(pg, user="bob"), range(8)))
    assert (ada, bob) == (50, 30)


def test_users_do_not_wait_for_each_other(init):
    """A user whose call is in flight for long holds up no other user's."""
    pg = init()
    pg.configure_plan("default", plan(1))
    inside, leave = threading.Event(), threading.Event()

    def slow():
        inside.set()
        leave.wait(30)
        return ANSWER

    thread = threading.Thread(target=lambda: pg.wrap(slow, user_id="ada", **EXACT))
    thread.start()
    assert inside.wait(30)
    call(pg, "bob")
    leave.set()
    thread.join(30)
    pg.flush()
    assert [round(pg.get_usage(user).period_cost * 100) for user in ("ada", "bob")] == [1, 1]


def test_a_busy_call_waits_and_goes_on(init):
    """A call that only another one in flight stands in the way of is made when that one cost less."""
    pg = init()
    pg.configure_plan("default", plan(2))
    inside, leave = threading.Event(), threading.Event()

    def cheap():
        inside.set()
        leave.wait(30)
        return {**ANSWER, "usage": {"prompt_tokens": 10, "completion_tokens": 0}}

    thread = threading.Thread(
        target=lambda: pg.wrap(cheap, user_id="ada", **{**EXACT, "estimated_max_tokens": 19})
    )
    thread.start()
    assert inside.wait(30)
    waiting = threading.Thread(target=lambda: call(pg))
    waiting.start()
    leave.set()
    thread.join(30)
    waiting.join(30)
    pg.flush()
    assert round(pg.get_usage("ada").period_cost * 100) == 2


def busy_refusal(init, **config):
    """What a caller hears who waited in vain for a call of another thread."""
    pg = init(busy_timeout=0.05)
    pg.configure_plan("default", plan(**{"calls": 1, **config}))

    def other_thread():
        with ThreadPoolExecutor(1) as threads:
            return threads.submit(call, pg).exception()

    refusals = []
    pg.wrap(lambda: refusals.append(other_thread()) or ANSWER, user_id="ada", **EXACT)
    return refusals[0]


def test_a_busy_call_is_refused_in_the_end(init):
    """A call that waited as long as it may is refused as busy, which says that trying again helps."""
    refusal = busy_refusal(init)
    assert type(refusal) is PaygentLimitExceeded
    assert refusal.retryable


@pytest.mark.parametrize(
    "config",
    [
        {"calls": 1},
        {"calls": 1000, "max_spend_per_session": 0.01 + 1e-9},
        {"calls": 1000, "model_limits": {"m": {"max_tokens_per_period": 10}}},
    ],
    ids=["period", "session", "model"],
)
def test_a_busy_refusal_says_so(init, config):
    """Its message speaks of other calls in flight, never of a limit reached or of nothing used."""
    message = busy_refusal(init, **config).guard_result.message
    assert "other calls in flight" in message
    assert "try again" in message
    assert "reached" not in message
    assert "$0" not in message


def test_a_spent_refusal_says_what_was_used(init):
    """A user who spent his plan reads how much of how much that was, and that trying again does not help."""
    pg = init()
    pg.configure_plan("default", plan(1, max_spend_per_period=0.01, pre_call_estimate=False))
    call(pg)
    with pytest.raises(PaygentLimitExceeded) as refused:
        call(pg)
    assert not refused.value.retryable
    assert refused.value.guard_result.message.startswith("Limit reached: $0.01 of $0.01 used")
