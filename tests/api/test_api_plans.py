"""Plans in code, in a file and in the context; sessions started by hand."""

from __future__ import annotations

import threading

import pytest
from api_world import RATES, answer, ask, events, openai_client, plan, spend

from paygent import (
    BillingPeriod,
    ModelLimitConfig,
    Paygent,
    PaygentLimitExceeded,
    PlanConfig,
    paygent_context,
    paygent_exempt,
)


def call(pg, user_id="ann", **options):
    return pg.wrap(answer, **{"user_id": user_id, "model": "gpt-4o", **options})


def test_the_default_plan_applies_from_the_first_call(pg):
    """A user whom nobody assigned is bound by the plan named ``default``."""
    pg.configure_plan("default", plan(max_spend_per_period=0))
    with pytest.raises(PaygentLimitExceeded):
        call(pg)


def test_the_default_plan_binds_concurrent_first_calls(tmp_path):
    """Of eight first calls at once only as many pass as the plan covers."""
    pg = Paygent.init(db_path=tmp_path / "p.db")
    pg.configure_plan("default", plan(max_spend_per_period=0.08, pre_call_estimate=True))
    start, outcomes = threading.Barrier(8), []

    def first_call():
        start.wait()
        try:
            call(pg, estimated_input_tokens=1000, estimated_max_tokens=600)  # reserves 3.36 cents, costs 4
            outcomes.append("passed")
        except PaygentLimitExceeded:
            outcomes.append("refused")

    threads = [threading.Thread(target=first_call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["passed"] * 2 + ["refused"] * 6
    assert pg.get_usage("ann").period_cost == pytest.approx(0.08)


def test_without_any_plan_there_is_no_limit_and_one_warning(pg, log):
    """Users without a plan pass, and the log says once that none is configured."""
    for user_id in ("ann", "bob", "cid"):
        call(pg, user_id)
    assert len([r for r in log.records if "no plan named 'default'" in r.message]) == 1


def test_no_plan_can_block():
    """``init(no_plan="block")`` refuses users without a plan, and says why."""
    pg = Paygent.init(ledger="memory://", no_plan="block")
    assert pg.check_guard("ann", "gpt-4o").status == "hard_gate"
    with pytest.raises(PaygentLimitExceeded, match="no plan") as caught:
        call(pg)
    assert caught.value.refusal.code == "no_plan"
    assert pg.get_max_tokens("ann", "gpt-4o").binding_limit == "blocked"


def test_no_plan_block_lets_users_with_a_plan_pass():
    """Only who has no plan at all is refused."""
    pg = Paygent.init(ledger="memory://", no_plan="block")
    pg.configure_plan("pro", plan())
    pg.assign_plan("ann", "pro")
    call(pg)
    assert pg.check_guard("ann").status == "ok"


def test_an_unknown_plan_has_no_limits_and_a_warning(pg, log):
    """``assign_plan`` with a name that nobody configured: permissive, as in the seeds."""
    state = pg.assign_plan("ann", "gold")
    assert (state.plan, state.plan_config) == ("gold", PlanConfig())
    call(pg)
    assert [r.message for r in log.records if "'gold'" in r.message] == [
        "no plan named 'gold' is configured: its users have no limits"
    ]


def test_a_plan_configured_after_its_users_were_assigned_binds_them(pg):
    """The order of ``assign_plan`` and ``configure_plan`` does not matter."""
    pg.assign_plan("ann", "gold")
    pg.configure_plan("gold", plan(max_spend_per_period=0))
    assert pg.check_guard("ann").status == "hard_gate"
    with pytest.raises(PaygentLimitExceeded):
        call(pg)


def test_a_changed_plan_binds_the_next_call(pg):
    """``configure_plan`` again moves the limit; what was used stays."""
    pg.configure_plan("default", plan(max_spend_per_period=1.0))
    call(pg)
    pg.configure_plan("default", plan(max_spend_per_period=0.04))
    assert pg.check_guard("ann").status == "hard_gate"
    with pytest.raises(PaygentLimitExceeded):
        call(pg)
    assert pg.get_usage("ann").period_cost == 0.04


def test_an_upgrade_unblocks_at_once(pg):
    """A spent user is asked again after ``assign_plan``."""
    pg.configure_plan("default", plan(max_spend_per_period=0.04))
    pg.configure_plan("pro", plan(max_spend_per_period=1.0))
    call(pg)
    with pytest.raises(PaygentLimitExceeded):
        call(pg)
    assert pg.assign_plan("ann", "pro").current_usage.period_cost == 0.04
    call(pg)


def test_start_session_without_a_plan_keeps_the_assigned_one(pg):
    """Warming the cache never moves a user."""
    pg.configure_plan("default", plan(max_spend_per_period=1.0))
    pg.configure_plan("pro", plan(max_spend_per_period=5.0))
    pg.assign_plan("ann", "pro")
    state = pg.start_session("ann")
    assert (state.plan, state.plan_config.max_spend_per_period) == ("pro", 5.0)


def test_start_session_with_limits_keeps_usage_and_name(pg):
    """``plan_config=`` updates the limits of the user, and nothing else."""
    pg.configure_plan("pro", plan(max_spend_per_period=5.0))
    pg.assign_plan("ann", "pro")
    call(pg)
    state = pg.start_session("ann", plan_config=plan(max_spend_per_period=0.04))
    assert (state.plan, state.current_usage.period_cost) == ("pro", 0.04)
    with pytest.raises(PaygentLimitExceeded):
        call(pg)


def test_start_session_names_a_plan_with_its_limits(pg):
    """As in the seeds: name and limits in one call, for one user."""
    state = pg.start_session("ann", plan="free", plan_config=plan(max_spend_per_period=5.0))
    assert (state.plan, state.plan_config.max_spend_per_period) == ("free", 5.0)
    assert pg.get_user_state("bob").plan_config.max_spend_per_period == float("inf")


def test_start_session_moves_a_user_to_a_registered_plan(pg):
    """A plan that is named and known is taken on."""
    pg.configure_plan("pro", plan(max_spend_per_period=5.0))
    assert pg.start_session("ann", plan="pro").plan_config.max_spend_per_period == 5.0


def test_start_session_with_an_unknown_plan_keeps_the_assigned_one(pg, log):
    """A misspelt plan takes no limits off a user: he keeps his plan, and the log says so."""
    pg.configure_plan("pro", plan(max_spend_per_period=5.0))
    pg.assign_plan("ann", "pro")
    assert pg.start_session("ann", plan="prp").plan == "pro"
    assert any("'prp'" in r.message for r in log.records)


def test_assign_plan_ends_limits_of_ones_own(pg):
    """The limits given to ``start_session`` end with the next assigned plan."""
    pg.configure_plan("pro", plan(max_spend_per_period=5.0))
    pg.start_session("ann", plan_config=plan(max_spend_per_period=0))
    assert pg.assign_plan("ann", "pro").plan_config.max_spend_per_period == 5.0


def test_assign_plan_without_a_period_keeps_the_period(world):
    """A change of plan does not end the month that was paid for."""
    start = world.clock.now_us() // 1_000_000
    from datetime import datetime, timedelta, timezone

    began = datetime.fromtimestamp(start, timezone.utc) - timedelta(days=3)
    period = BillingPeriod(start=began, end=began + timedelta(days=10))
    world.pg.configure_plan("a", plan())
    world.pg.configure_plan("b", plan())
    world.pg.assign_plan("ann", "a", period)
    assert world.pg.assign_plan("ann", "b").billing_period == period


@pytest.mark.parametrize("use", ["context", "track"])
def test_a_plan_in_the_context_moves_the_user(pg, use):
    """``plan=`` of a context or decorator moves the user, usage kept, and he stays there."""
    pg.configure_plan("default", plan(max_spend_per_period=1.0))
    pg.configure_plan("pro", plan(max_spend_per_period=5.0))
    call(pg)
    if use == "context":
        with paygent_context("ann", plan="pro"):
            ask(openai_client())
    else:
        pg.track(user_id="ann", plan="pro")(lambda: ask(openai_client()))()
    state = pg.get_user_state("ann")
    assert (state.plan, state.current_usage.period_cost) == ("pro", 0.08)


def test_an_unknown_plan_in_the_context_keeps_the_present_one(pg):
    """A name that is not registered takes no limits off."""
    pg.configure_plan("default", plan(max_spend_per_period=0.04))
    call(pg)
    with paygent_context("ann", plan="platinum"), pytest.raises(PaygentLimitExceeded):
        ask(openai_client())
    assert pg.get_user_state("ann").plan == "default"


def test_exempt_passes_unmetered_and_ungated(pg):
    """System work within ``paygent_exempt`` is nobody's, also for a user who is spent."""
    pg.configure_plan("default", plan(max_spend_per_period=0))
    with paygent_context("ann"), paygent_exempt():
        ask(openai_client())
    assert events(pg) == []


def test_plans_are_read_from_a_file(tmp_path):
    """``init(plans=)`` registers every plan of the file."""
    file = tmp_path / "plans.toml"
    file.write_text(
        "[plans.default]\nmax_spend_per_period = 1.5\nmodel_limits.gpt-4o.max_tokens_per_period = 10\n"
        "[plans.pro]\nmax_spend_per_period = inf\ncost_rates.gpt-4o = {input = 0.01, output = 0.03}\n"
    )
    pg = Paygent.init(ledger="memory://", plans=file)
    assert pg.get_user_state("ann").plan_config == PlanConfig(
        max_spend_per_period=1.5, model_limits={"gpt-4o": ModelLimitConfig(max_tokens_per_period=10)}
    )
    assert pg.assign_plan("bob", "pro").plan_config == PlanConfig(cost_rates=RATES)


@pytest.mark.parametrize(
    "text, named",
    [
        (b"[plans.free]\nhard_gate_at = 80\n", "(?s)plan 'free'.*hard_gate_at"),
        (b"[plans.free]\nmax_spend = 8\n", "(?s)plan 'free'.*max_spend"),
        (b"[plans]\nfree = 5\n", "plan 'free'"),
        (b"[free]\nmax_spend_per_period = 1\n", r"\[plans\.<name>\]"),
        (b"plans = [", "plans.toml"),
        (b"\xff\xfe", "plans.toml"),
    ],
    ids=["value", "field", "no table", "heading", "syntax", "encoding"],
)
def test_a_file_of_plans_is_checked_at_start(tmp_path, text, named):
    """A mistake in the file is a ``ValueError`` that names file, plan and field; nothing is started."""
    file = tmp_path / "plans.toml"
    file.write_bytes(text)
    with pytest.raises(ValueError, match=named):
        Paygent.init(ledger="memory://", plans=file)
    assert Paygent.get_instance() is None


def test_a_file_of_plans_that_is_not_there_is_an_error(tmp_path):
    """A missing file is not taken for an empty one."""
    with pytest.raises(FileNotFoundError):
        Paygent.init(ledger="memory://", plans=tmp_path / "none.toml")


@pytest.mark.parametrize("name", ["", None, 5, "\ud800"])
def test_a_plan_needs_a_name(pg, name):
    """A plan is named by a text that a ledger can store."""
    with pytest.raises(ValueError, match="plan"):
        pg.configure_plan(name, PlanConfig())
    with pytest.raises(ValueError, match="plan"):
        pg.assign_plan("ann", name)


def test_a_plan_may_be_given_as_a_dict(pg):
    """What reads like a plan is one, and is checked like one."""
    pg.configure_plan("default", {"max_spend_per_period": 2})
    assert pg.get_user_state("ann").plan_config.max_spend_per_period == 2.0
    with pytest.raises(ValueError, match="max_spend"):
        pg.configure_plan("default", {"max_spend": 2})


def test_a_cap_of_zero_blocks_everything(pg):
    """Zero is a limit: no call passes, whichever cap it is."""
    zero = ModelLimitConfig(max_tokens_per_period=0)
    for user_id, config in {
        "period": plan(max_spend_per_period=0),
        "session": plan(max_spend_per_session=0),
        "model": plan(model_limits={"gpt-4o": zero}),
        "gate": plan(max_spend_per_period=1, soft_gate_at=0, hard_gate_at=0),
    }.items():
        pg.start_session(user_id, plan_config=config)
        assert pg.check_guard(user_id, "gpt-4o").status == "hard_gate", user_id
        with pytest.raises(PaygentLimitExceeded):
            call(pg, user_id)


def test_a_model_that_the_plan_does_not_list_is_not_part_of_it(pg):
    """A plan that lists models refuses the others, guard and call alike, and says where to add them."""
    pg.configure_plan("default", plan())
    guard = pg.check_guard("ann", "gpt-4.1")
    assert (guard.status, guard.gate_reason, guard.limit_value) == ("hard_gate", "model_limit:gpt-4.1", 0)
    with pytest.raises(PaygentLimitExceeded, match="add it to model_limits or cost_rates"):
        call(pg, model="gpt-4.1")


def test_a_model_without_a_price_is_refused_under_a_spend_cap(pg):
    """What nobody can price cannot be capped: guard and call refuse it."""
    pg.configure_plan("default", PlanConfig(max_spend_per_period=1.0))
    assert pg.check_guard("ann", "house-model").status == "hard_gate"
    with pytest.raises(PaygentLimitExceeded, match="No price is known") as caught:
        call(pg, model="house-model")
    assert caught.value.refusal.code == "unpriced"


def test_plans_of_another_instance_on_the_same_file_bind(tmp_path):
    """Plans and assignments live in the ledger: a new process knows them."""
    first = Paygent.init(db_path=tmp_path / "p.db")
    first.configure_plan("pro", plan(max_spend_per_period=0.5))
    first.assign_plan("ann", "pro")
    first.shutdown()
    second = Paygent.init(db_path=tmp_path / "p.db")
    spend(second, "ann", 0.5)
    assert second.check_guard("ann").status == "hard_gate"
    assert second.get_user_state("ann").plan == "pro"
