"""Sessions and billing periods, under a clock that the test moves."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from api_world import World, answer, events, plan, spend

from paygent import BillingPeriod, Paygent, PaygentLimitExceeded
from paygent.core.windows import from_us
from paygent.ledgers.sqlite import SqliteLedger
from paygent.testing.clock import FakeClock


def session(world, user_id="ann"):
    return world.pg.get_usage(user_id).session_id


def test_a_session_begins_with_the_first_call(world):
    """Loading a user begins none; the first call does, at its own moment."""
    world.pg.start_session("ann")
    assert session(world) is None
    world.clock.advance(60)
    world.call()
    usage = world.pg.get_usage("ann")
    assert usage.session_id is not None
    assert usage.session_started_at == from_us(world.clock.now_us())


def test_a_session_ends_a_fixed_time_after_it_began(world):
    """Activity does not extend it: it ends ``session_timeout_minutes`` after its start."""
    world.pg.configure_plan("default", plan(session_timeout_minutes=30))
    world.call()
    first = session(world)
    world.clock.advance(29 * 60)
    world.call()
    assert session(world) == first
    world.clock.advance(61)
    assert session(world) is None
    world.call()
    assert session(world) not in (None, first)
    assert world.pg.get_usage("ann").session_cost == 0.04


def test_a_new_session_is_a_new_budget(world):
    """A spent session blocks until it ends: guard and call agree before and after."""
    world.pg.configure_plan("default", plan(max_spend_per_session=0.04, session_timeout_minutes=10))
    world.call()
    assert world.pg.check_guard("ann").gate_reason == "session_spend"
    with pytest.raises(PaygentLimitExceeded) as caught:
        world.call()
    assert caught.value.refusal.resets_at == from_us(world.clock.now_us() + 600_000_000)
    world.clock.advance(600)
    assert world.pg.check_guard("ann").status == "ok"
    assert world.pg.get_remaining_budget("ann").session_spend_remaining == 0.04
    assert world.pg.get_max_tokens("ann", "gpt-4o").max_tokens > 0
    world.call()


def test_a_session_id_of_the_caller_is_a_session_of_its_own(world):
    """Each ``session_id`` has its own budget, beside the default one."""
    world.pg.configure_plan("default", plan(max_spend_per_session=0.04))
    world.call(session_id="a")
    world.call(session_id="b")
    world.call()
    with pytest.raises(PaygentLimitExceeded):
        world.call(session_id="a")
    assert {event.session_id for event in events(world.pg)} >= {"a", "b"}


def test_a_session_outlives_a_restart(tmp_path):
    """Within its window the session goes on in the next process, with what was spent in it."""
    clock = FakeClock()
    first = World(SqliteLedger(tmp_path / "p.db", clock.now_us), clock)
    first.pg.configure_plan("default", plan(max_spend_per_session=0.08))
    first.call()
    before = session(first)
    first.pg.shutdown()
    clock.advance(60)
    second = World(SqliteLedger(tmp_path / "p.db", clock.now_us), clock)
    second.call()
    usage = second.pg.get_usage("ann")
    assert (usage.session_id, usage.session_cost) == (before, 0.08)
    with pytest.raises(PaygentLimitExceeded):
        second.call()


def test_a_named_session_outlives_a_restart(tmp_path):
    """A caller's own session is found again by its name."""
    clock = FakeClock()
    first = World(SqliteLedger(tmp_path / "p.db", clock.now_us), clock)
    first.pg.configure_plan("default", plan(max_spend_per_session=0.04))
    first.call(session_id="chat-7")
    first.pg.shutdown()
    second = World(SqliteLedger(tmp_path / "p.db", clock.now_us), clock)
    with pytest.raises(PaygentLimitExceeded):
        second.call(session_id="chat-7")


def test_without_a_period_the_calendar_month_counts():
    """On the first of the next month, in UTC, everybody starts anew."""
    world = World(clock=FakeClock(datetime(2026, 2, 28, 23, 59, tzinfo=timezone.utc)))
    world.pg.configure_plan("default", plan(max_spend_per_period=0.04))
    world.call()
    with pytest.raises(PaygentLimitExceeded) as caught:
        world.call()
    assert caught.value.refusal.resets_at == datetime(2026, 3, 1, tzinfo=timezone.utc)
    world.clock.advance(60)
    assert world.pg.check_guard("ann").status == "ok"
    assert world.pg.get_usage("ann").period_cost == 0.0
    world.call()
    assert world.pg.get_usage("ann").period_cost == 0.04


def test_an_assigned_period_counts_as_assigned(world):
    """Usage is counted from the start of the period, and is gone after its end."""
    now = from_us(world.clock.now_us())
    period = BillingPeriod(start=now - timedelta(days=1), end=now + timedelta(days=6))
    world.pg.configure_plan("pro", plan(max_spend_per_period=0.04))
    assert world.pg.assign_plan("ann", "pro", period).billing_period == period
    world.call()
    with pytest.raises(PaygentLimitExceeded) as caught:
        world.call()
    assert caught.value.refusal.resets_at == period.end


def test_an_ended_period_rolls_on_by_its_own_length(world, log):
    """A subscription that nobody renewed goes on, and the log says so once."""
    now = from_us(world.clock.now_us())
    world.pg.configure_plan("pro", plan(max_spend_per_period=0.04))
    world.pg.assign_plan("ann", "pro", BillingPeriod(start=now, end=now + timedelta(days=7)))
    world.call()
    world.clock.advance(10 * 86_400)
    world.call()
    state = world.pg.get_user_state("ann")
    assert state.billing_period == BillingPeriod(start=now + timedelta(days=7), end=now + timedelta(days=14))
    assert state.current_usage.period_cost == 0.04
    assert len([r for r in log.records if "billing period" in r.message and "'ann'" in r.message]) == 1


def test_an_event_belongs_to_the_window_its_call_began_in(world):
    """A call that spans the end of a session is counted where it began."""
    world.pg.configure_plan("default", plan(session_timeout_minutes=10))

    def slow():
        world.clock.advance(700)
        return answer()

    world.pg.wrap(slow, user_id="ann", model="gpt-4o")
    first = events(world.pg)[0]
    world.call()
    second = events(world.pg)[-1]
    assert first.session_id != second.session_id
    assert world.pg.get_usage("ann").session_cost == 0.04
    assert world.pg.get_usage("ann").period_cost == 0.08


def test_manual_events_count_in_the_running_session(world):
    """``record_event`` begins a session where none runs, like a call."""
    spend(world.pg, "ann", 1.0)
    assert world.pg.get_usage("ann").session_cost == 1.0


def test_totals_after_a_restart_are_those_before(tmp_path):
    """Period, session and model totals are read back exactly."""
    pg = Paygent.init(db_path=tmp_path / "p.db")
    pg.configure_plan("default", plan())
    for _ in range(3):
        pg.wrap(answer, user_id="ann", model="gpt-4o")
    before = pg.get_usage("ann")
    pg.shutdown()
    assert Paygent.init(db_path=tmp_path / "p.db").get_usage("ann") == before
