"""Coroutines that nobody finishes: the collector ends them on whatever thread, in the middle of anything."""

import asyncio
import contextlib
import threading

import greenlet
import pytest
from engine_values import EXACT, call, plan

from paygent import paygent_context, paygent_track
from paygent.context import Payer, current_payer
from paygent.core.usage import Usage
from paygent.meter.call import Call
from paygent.meter.queue import GOES_S, LEFT_S


@pytest.fixture
def pg(init):
    """A plan of three calls, and a user whose windows are known."""
    pg = init(ledger="memory://")
    pg.configure_plan("default", plan(3))
    call(pg)
    return pg


async def never():
    """An answer that does not come."""
    await asyncio.get_running_loop().create_future()


def left_open(coroutine, there=lambda: True):
    """Run *coroutine* until it is *there*; then its event loop is closed, and nobody finishes it."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(coroutine)
    loop.run_until_complete(asyncio.sleep(0))
    while not there():
        loop.run_until_complete(asyncio.sleep(0.001))
    loop.close()
    task._log_destroy_pending = False
    return task.get_coro()


def holds(wallet):
    """Whether a call of the user has passed the gate and is being made."""
    return lambda: wallet.period_purse.held > 0


def ends_under(lock, coroutine):
    """Whether *coroutine* can be closed by a thread that holds *lock*, as the collector may close it."""

    def end():
        with lock:
            coroutine.close()

    thread = threading.Thread(target=end, daemon=True)
    thread.start()
    thread.join(20)
    return not thread.is_alive()


def test_a_call_that_is_ended_under_its_users_lock_waits_for_nothing(pg):
    """A metered coroutine that is ended on a thread within the engine ends at once, and is settled later."""
    wallet = pg._meter.wallets["ada"]
    coroutine = left_open(pg.awrap(never(), user_id="ada", **EXACT), holds(wallet))
    assert ends_under(wallet.lock, coroutine)
    assert wallet.period_purse.held > 0
    pg.flush()
    assert wallet.period_purse.held == 0
    assert pg.get_usage("ada").period_cost > 0.01


def test_a_waiting_call_that_is_ended_under_its_users_lock_waits_for_nothing(init):
    """So does one that waits at the gate; its place in the line is given up."""
    pg = init(ledger="memory://", busy_timeout=30.0)
    pg.configure_plan("default", plan(2))
    call(pg)
    wallet = pg._meter.wallets["ada"]
    holder = left_open(pg.awrap(never(), user_id="ada", **EXACT), holds(wallet))
    waiting = left_open(pg.awrap(never(), user_id="ada", **EXACT), lambda: wallet.asks)
    assert ends_under(wallet.lock, waiting)
    pg._meter.settle_dropped()
    assert not wallet.asks
    holder.close()


def test_a_tracked_coroutine_that_is_ended_elsewhere_changes_nobodys_payer():
    """A tracked coroutine that is ended within another user's block leaves that block its user."""

    @paygent_track("alice")
    async def tracked():
        await never()

    coroutine = left_open(tracked())
    with paygent_context("bob"):
        coroutine.close()
        assert current_payer().user_id == "bob"


def test_a_wrapped_coroutine_that_is_ended_elsewhere_changes_nobodys_payer(pg):
    """A metered coroutine that is ended within another user's block leaves that block its user."""
    coroutine = left_open(pg.awrap(never(), user_id="ada", **EXACT), holds(pg._meter.wallets["ada"]))
    with paygent_context("bob"):
        coroutine.close()
        assert current_payer().user_id == "bob"


def test_a_fault_while_settling_what_was_dropped_is_logged_and_the_rest_settled(pg, caplog):
    """One of those left behind that cannot be settled is reported, and the next one is settled."""

    def fail():
        raise RuntimeError("boom")

    settled = []
    pg._meter.dropped_calls.extend((fail, lambda: settled.append(1)))
    with contextlib.suppress(Exception):
        pg._meter.settle_dropped()
    assert settled == [1]
    assert "settling what was dropped" in caplog.text


def test_nobody_stands_behind_a_caller_whose_loop_was_closed(init):
    """A caller at the head of the line who has not looked for long is turned away; the next one is served."""
    pg = init(ledger="memory://", busy_timeout=0.5)
    pg.configure_plan("default", plan(2))
    call(pg)
    wallet, meter = pg._meter.wallets["ada"], pg._meter
    holder = left_open(pg.awrap(never(), user_id="ada", **EXACT), holds(wallet))
    gone = left_open(pg.awrap(never(), user_id="ada", **EXACT), lambda: wallet.asks)
    (left,) = wallet.asks
    now_s = meter.boot() + 0.5 + LEFT_S + 1
    served = []
    with wallet.lock:
        meter.queue._turn_away_left(wallet, now_s, served)
        assert not served  # the process may have been stopped: then he withdraws by himself
        meter.queue._turn_away_left(wallet, now_s + GOES_S, served)
    assert [ask for ask, _ in served] == [left]
    assert not wallet.asks
    holder.close()
    gone.close()


def test_a_user_with_a_call_that_holds_nothing_stays_in_memory(pg):
    """While an event is noted down, which reserves nothing, its user is not dropped; afterwards he may be."""
    seen = []
    wallet = pg._meter.wallets["ada"]
    line = Call(pg._meter, Payer("ada", None, None, None), "openai", "batch", "m", 0, None)

    def post():
        pg.reset_user("ada")
        seen.append(pg._meter.wallets.get("ada") is wallet)
        line.finish_estimated(None, 0)

    pg.flush()
    pg._meter.gate.when_open(line, post)
    pg.flush()
    assert seen == [True]
    assert wallet.unseen == 0


def test_the_model_of_a_call_that_holds_nothing_keeps_its_count(init):
    """What is counted of a model stays the call's while an event is noted down, whatever the ledger says."""
    pg = init(ledger="memory://")
    pg.configure_plan("default", plan(10, model_limits={"m": {"max_tokens_per_period": 100}}))
    line = Call(pg._meter, Payer("ada", None, None, None), "openai", "batch", "m", 0, None)
    pg._meter.gate.when_open(line, lambda: None)
    pg.flush()
    wallet = pg._meter.wallets["ada"]
    wallet.stale = True
    pg.flush()
    line.finish(Usage(60, 0))
    assert wallet.purse_of(line.terms.scope).used == 60


@pytest.mark.parametrize("is_replaced", [True, False], ids=["replaced", "shut down"])
def test_a_coroutine_that_ends_after_its_instance_is_counted(init, is_replaced):
    """A call that nobody finishes, of an instance that is closed, is in the books of whoever comes next."""
    pg = init()
    pg.configure_plan("default", plan(10))
    call(pg)
    made = pg.awrap(never(), user_id="ada", **EXACT)
    coroutine = left_open(made, holds(pg._meter.wallets["ada"]))
    following = init() if is_replaced else None
    pg.shutdown()
    coroutine.close()
    following = following or init()
    call(following, "bob")
    following.shutdown()
    last = init()
    call(last, "bob")
    last.flush()
    assert last.get_usage("ada").period_cost > 0.01


def test_a_coroutine_that_ends_while_its_instance_closes_waits_for_nothing(init):
    """The ledger thread itself may end it, which still settles: the user's lock is not taken there."""
    pg = init(ledger="memory://")
    pg.configure_plan("default", plan(3))
    call(pg)
    wallet = pg._meter.wallets["ada"]
    coroutine = left_open(pg.awrap(never(), user_id="ada", **EXACT), holds(wallet))
    closed_under_lock = []
    stop = pg._meter.exporter.stop

    def stop_later(timeout_s):
        closed_under_lock.append(ends_under(wallet.lock, coroutine))
        return stop(timeout_s)

    pg._meter.exporter.stop = stop_later
    pg.shutdown()
    assert closed_under_lock == [True]
    assert wallet.period_purse.held == 0


@pytest.mark.parametrize("has_room", [True, False], ids=["in its call", "at the gate"])
def test_a_greenlet_that_is_ended_under_its_users_lock_waits_for_nothing(init, has_room):
    """As a coroutine: gevent's exit comes on the thread that collects, and the call is settled later."""
    pg = init(ledger="memory://", busy_timeout=30.0)
    pg.configure_plan("default", plan(2))
    call(pg)
    wallet = pg._meter.wallets["ada"]
    others = None if has_room else left_open(pg.awrap(never(), user_id="ada", **EXACT), holds(wallet))
    hub = greenlet.getcurrent()
    if not has_room:
        pg._meter.gate._wait = lambda ask: hub.switch()
    left = [greenlet.greenlet(lambda: pg.wrap(hub.switch, user_id="ada", **EXACT))]
    left[0].switch()
    assert wallet.period_purse.held > 0
    with wallet.lock:
        left.clear()
    pg._meter.settle_dropped()
    assert not wallet.asks
    if others is not None:
        others.close()
    pg.flush()
    assert wallet.period_purse.held == 0
