"""The live ``UserState``: what is assigned to it is obeyed, copies of it are plain values."""

from __future__ import annotations

import copy
import pickle
from datetime import datetime, timedelta, timezone

import pytest
from api_world import answer, ask, events, openai_client, plan, spend

from paygent import (
    BillingPeriod,
    CurrentUsage,
    ModelLimitConfig,
    PaygentLimitExceeded,
    PlanConfig,
    paygent_context,
)

NOW = datetime.now(timezone.utc)


@pytest.fixture
def capped(pg):
    """A Paygent whose default plan allows one dollar."""
    pg.configure_plan("default", plan(max_spend_per_period=1.0))
    return pg


def call(pg, user_id="ann"):
    return pg.wrap(answer, user_id=user_id, model="gpt-4o")


def refused(pg, user_id="ann"):
    """Whether both the guard and a real call of the SDK meet a closed gate."""
    guard = pg.check_guard(user_id, "gpt-4o").status == "hard_gate"
    try:
        with paygent_context(user_id):
            ask(openai_client())
    except PaygentLimitExceeded:
        return guard
    assert not guard
    return False


@pytest.mark.parametrize("getter", ["get_user_state", "start_session", "refresh_user"])
def test_period_cost_can_be_assigned(capped, getter):
    """The next guard check and the next call are judged by the assigned cost."""
    getattr(capped, getter)("ann").current_usage.period_cost = 1.0
    assert refused(capped)


def test_assign_plan_returns_the_live_state(capped):
    """An edit of what ``assign_plan`` returned is obeyed too."""
    capped.configure_plan("pro", plan(max_spend_per_period=5.0))
    state = capped.assign_plan("ann", "pro")
    state.current_usage.period_cost = 4.5
    assert capped.check_guard("ann").status == "soft_gate"


def test_a_part_of_the_state_is_live_without_the_whole(capped):
    """Whoever holds only ``current_usage`` edits the user, though the state itself was never kept."""
    usage = capped.get_user_state("ann").current_usage
    usage.period_cost = 1.0
    assert refused(capped)


def test_usage_goes_on_counting_after_an_edit(capped):
    """A call after the edit adds to the assigned amount."""
    state = capped.get_user_state("ann")
    state.current_usage.period_cost = 0.5
    call(capped)
    assert state.current_usage.period_cost == pytest.approx(0.54)
    assert capped.get_usage("ann").period_cost == pytest.approx(0.54)


def test_an_edit_survives_a_flush(capped):
    """What the ledger answers does not undo the edit."""
    state = capped.get_user_state("ann")
    state.current_usage.period_cost = 0.9
    call(capped)
    capped.flush()
    assert capped.get_usage("ann").period_cost == pytest.approx(0.94)


def test_an_edit_of_usage_survives_start_session(capped):
    """``start_session`` with other limits never touches usage, also not an edited one."""
    capped.get_user_state("ann").current_usage.period_cost = 0.9
    state = capped.start_session("ann", plan_config=plan(max_spend_per_period=2.0))
    assert state.current_usage.period_cost == pytest.approx(0.9)
    assert state.plan_config.max_spend_per_period == 2.0
    assert capped.check_guard("ann").status == "ok"


def test_session_cost_can_be_assigned_before_the_first_call(pg):
    """The assigned cost of a session is judged, though no call has begun one."""
    pg.configure_plan("default", plan(max_spend_per_session=1.0))
    pg.get_user_state("ann").current_usage.session_cost = 1.0
    assert pg.check_guard("ann").gate_reason == "session_spend"
    assert refused(pg)


def test_tokens_of_a_model_can_be_assigned(pg):
    """The tokens of a model are judged, whether the dict is replaced or changed."""
    limits = {"gpt-4o": ModelLimitConfig(max_tokens_per_period=100)}
    pg.configure_plan("default", plan(model_limits=limits))
    pg.get_user_state("ann").current_usage.period_tokens_by_model = {"gpt-4o": 100}
    pg.get_user_state("bob").current_usage.period_tokens_by_model["gpt-4o"] = 100
    assert refused(pg, "ann")
    assert refused(pg, "bob")


def test_a_field_of_the_plan_can_be_assigned(capped):
    """A nested limit is obeyed, for this user alone."""
    spend(capped, "ann", 0.5)
    spend(capped, "bob", 0.5)
    capped.get_user_state("ann").plan_config.max_spend_per_period = 0.5
    assert refused(capped, "ann")
    assert not refused(capped, "bob")


def test_the_whole_plan_can_be_assigned(capped):
    """Another ``PlanConfig`` is obeyed, and is live itself."""
    spend(capped, "ann", 1.0)
    state = capped.get_user_state("ann")
    state.plan_config = plan(max_spend_per_period=9.0)
    assert not refused(capped)
    state.plan_config.max_spend_per_period = 0.0
    assert refused(capped)


def test_a_limit_deep_within_the_plan_can_be_assigned(pg):
    """Dictionaries within the plan are live, with what they hold."""
    pg.configure_plan("default", plan())
    state = pg.get_user_state("ann")
    state.plan_config.model_limits["gpt-4o"] = ModelLimitConfig(max_tokens_per_period=0)
    assert refused(pg)
    state.plan_config.model_limits["gpt-4o"].max_tokens_per_period = 10**6
    assert not refused(pg)
    state.plan_config.model_limits["gpt-4o"].max_tokens_per_period = 10
    assert refused(pg)
    state.plan_config.model_limits.clear()
    assert not refused(pg)


@pytest.mark.parametrize(
    "edit",
    [
        lambda limits: limits.update({"gpt-4o": ModelLimitConfig(max_tokens_per_period=0)}),
        lambda limits: limits.setdefault("gpt-4o", ModelLimitConfig(max_tokens_per_period=0)),
        lambda limits: limits.__ior__({"gpt-4o": ModelLimitConfig(max_tokens_per_period=0)}),
        lambda limits: limits.update({"gpt-4o": {"max_tokens_per_period": 0}}),
    ],
    ids=["update", "setdefault", "ior", "plain dict"],
)
def test_every_way_to_change_a_dictionary_is_obeyed(pg, edit):
    """A dictionary in the plan may be changed by any of its methods."""
    pg.configure_plan("default", plan())
    edit(pg.get_user_state("ann").plan_config.model_limits)
    assert refused(pg)


def test_a_wrong_value_is_refused_and_changes_nothing(capped):
    """An edit is checked like any assignment; a refused one leaves plan and dictionary as they were."""
    state = capped.get_user_state("ann")
    with pytest.raises(ValueError, match="max_spend_per_period"):
        state.plan_config.max_spend_per_period = -1.0
    with pytest.raises(ValueError, match="gpt-4o"):
        state.plan_config.model_limits["gpt-4o"] = 5
    with pytest.raises(ValueError, match="period_cost"):
        state.current_usage.period_cost = float("nan")
    assert state.plan_config.model_limits == {}
    assert not refused(capped)


def test_sdk_enabled_switches_metering_off(capped):
    """A user who is switched off passes unmetered and ungated, until he is switched on."""
    spend(capped, "ann", 1.0)
    state = capped.get_user_state("ann")
    state.sdk_enabled = False
    assert not refused(capped)
    assert len(events(capped, "ann")) == 1
    state.sdk_enabled = True
    assert refused(capped)


def test_another_billing_period_is_obeyed(capped):
    """A period that began just now has nothing used in it."""
    spend(capped, "ann", 1.0)
    state = capped.get_user_state("ann")
    state.billing_period = BillingPeriod(start=NOW, end=NOW + timedelta(days=30))
    assert not refused(capped)
    assert state.current_usage.period_cost == pytest.approx(0.04)


def test_an_end_of_the_billing_period_can_be_assigned(capped):
    """The period itself is live: a later start makes it another window."""
    start = NOW - timedelta(days=10)
    state = capped.assign_plan("ann", "default", BillingPeriod(start=start, end=start + timedelta(days=30)))
    spend(capped, "ann", 1.0)
    assert refused(capped)
    state.billing_period.start = NOW - timedelta(seconds=5)
    assert not refused(capped)


def test_the_state_shows_what_is_used_later(capped):
    """A state that is kept is brought up to date by every call."""
    state = capped.get_user_state("ann")
    call(capped)
    assert state.current_usage.period_cost == 0.04
    assert state.current_usage.period_tokens_total == 2000
    assert state.current_usage.session_id is not None


def test_there_is_one_live_state_per_user(capped):
    """Every accessor gives the same object, and it is known when it was refreshed."""
    state = capped.start_session("ann")
    assert capped.get_user_state("ann") is state
    assert abs(state.last_refreshed - datetime.now(timezone.utc)) < timedelta(seconds=5)


def test_refresh_user_undoes_local_edits(capped):
    """What the ledger knows is what counts again."""
    capped.get_user_state("ann").current_usage.period_cost = 1.0
    assert capped.refresh_user("ann").current_usage.period_cost == 0.0
    assert not refused(capped)


def test_reset_user_makes_an_edited_state_a_memory(capped):
    """After ``reset_user`` the state that was held edits nobody any more."""
    state = capped.get_user_state("ann")
    state.current_usage.period_cost = 1.0
    capped.reset_user("ann")
    assert not refused(capped)
    state.current_usage.period_cost = 1.0
    assert not refused(capped)


@pytest.mark.parametrize(
    "copied",
    [
        lambda state: state.model_copy(deep=True),
        copy.deepcopy,
        lambda state: pickle.loads(pickle.dumps(state)),
        lambda state: type(state).model_validate_json(state.model_dump_json()),
    ],
    ids=["model_copy", "deepcopy", "pickle", "json"],
)
def test_a_copy_of_the_state_is_a_plain_value(capped, copied):
    """A copy is equal, and editing it changes nobody."""
    state = capped.get_user_state("ann")
    value = copied(state)
    assert value == state
    value.current_usage.period_cost = 1.0
    value.plan_config.max_spend_per_period = 0.0
    value.plan_config.model_limits["gpt-4o"] = ModelLimitConfig(max_tokens_per_period=0)
    assert not refused(capped)


def test_get_usage_is_a_deep_copy(capped):
    """Changing the snapshot, dictionaries included, changes nothing."""
    call(capped)
    usage = capped.get_usage("ann")
    usage.period_cost = 1.0
    usage.period_tokens_by_model["gpt-4o"] = 10**9
    assert capped.get_usage("ann").period_cost == 0.04
    assert capped.get_usage("ann").period_tokens_by_model == {"gpt-4o": 2000}
    assert not refused(capped)


def test_a_plan_given_to_configure_plan_is_copied(pg):
    """Editing the caller's own object later changes no plan."""
    config = plan(max_spend_per_period=1.0)
    pg.configure_plan("default", config)
    state = pg.start_session("ann")
    config.max_spend_per_period = 0.0
    assert state.plan_config.max_spend_per_period == 1.0
    assert not refused(pg)


def test_the_whole_usage_can_be_assigned(capped):
    """Another ``CurrentUsage`` is obeyed, and is live itself."""
    state = capped.get_user_state("ann")
    state.current_usage = CurrentUsage(period_cost=1.0)
    assert refused(capped)
    state.current_usage.period_cost = 0.0
    assert not refused(capped)


def test_a_plan_without_limits_can_be_limited(pg):
    """A user without any plan is limited by an edit of the empty one."""
    state = pg.get_user_state("ann")
    assert state.plan_config == PlanConfig()
    state.plan_config.max_spend_per_period = 0.0
    assert pg.check_guard("ann").status == "hard_gate"
