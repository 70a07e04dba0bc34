"""``check_guard``, ``is_within_limit`` and ``get_remaining_budget``."""

from __future__ import annotations

import pytest
from api_world import answer, events, gate_events, plan, spend

from paygent import BudgetRemaining, GuardResult, ModelLimitConfig, Paygent, PlanConfig


def test_a_user_nobody_knows_is_within_limits(pg):
    """Without a plan and a session the answer is *ok*."""
    assert pg.check_guard("ann") == GuardResult(status="ok")
    assert pg.is_within_limit("ann")


@pytest.mark.parametrize(
    "spent, status, within",
    [(0.5, "ok", True), (0.8, "soft_gate", True), (1.0, "hard_gate", False), (2.0, "hard_gate", False)],
)
def test_the_guard_says_what_the_gate_would(pg, spent, status, within):
    """Below the soft mark, at it, and at the limit; the values are those of the limit."""
    pg.configure_plan("default", plan(max_spend_per_period=1.0))
    spend(pg, "ann", spent)
    guard = pg.check_guard("ann", "gpt-4o")
    assert (guard.status, guard.current_value, guard.limit_value) == (status, spent, 1.0)
    assert guard.usage_pct == pytest.approx(spent)
    assert guard.gate_reason == (None if status == "ok" else "total_spend")
    assert pg.is_within_limit("ann", "gpt-4o") is within


def test_the_most_restrictive_limit_wins(pg):
    """Of several limits the one that is used most is reported."""
    limits = {"gpt-4o": ModelLimitConfig(max_tokens_per_period=2000)}
    pg.configure_plan(
        "default", plan(max_spend_per_period=0.1, max_spend_per_session=0.05, model_limits=limits)
    )
    pg.wrap(answer, user_id="ann", model="gpt-4o")
    assert pg.check_guard("ann").gate_reason == "session_spend"
    assert pg.check_guard("ann", "gpt-4o").gate_reason == "model_limit:gpt-4o"


def test_the_guard_loads_a_user_that_the_ledger_knows(tmp_path):
    """A new process answers by what earlier ones posted."""
    first = Paygent.init(db_path=tmp_path / "p.db")
    first.configure_plan("default", plan(max_spend_per_period=1.0))
    spend(first, "ann", 1.0)
    second = Paygent.init(db_path=tmp_path / "p.db")
    assert second.check_guard("ann").status == "hard_gate"
    assert not second.is_within_limit("ann")


def test_the_guard_calls_nobody_back_and_writes_nothing(pg):
    """A pre-flight answer is no decision: no callback, no audit row, no event."""
    pg.configure_plan("default", plan(max_spend_per_period=1.0))
    spend(pg, "ann", 1.0)
    heard = []
    for slot in (pg.on_soft_gate, pg.on_hard_gate, pg.on_usage, pg.on_session_start):
        slot(heard.append)
    before = gate_events(pg)
    pg.reset_user("ann")
    pg.check_guard("ann", "gpt-4o")
    pg.is_within_limit("bob")
    assert (heard, gate_events(pg), len(events(pg))) == ([], before, 1)


def test_the_guard_asks_no_ledger_once_the_user_is_cached(world, monkeypatch):
    """A cached user is answered from memory."""
    world.pg.configure_plan("default", plan(max_spend_per_period=1.0))
    world.pg.check_guard("ann", "gpt-4o")

    def asked(*args):
        raise AssertionError("the ledger was asked")

    monkeypatch.setattr(world.pg._meter.exporter, "call", asked)
    monkeypatch.setattr(world.pg._meter.exporter, "submit", asked)
    assert world.pg.check_guard("ann", "gpt-4o").limit_value == 1.0
    assert world.pg.is_within_limit("ann")


def test_the_guard_begins_no_session(pg):
    """Asking does not start the clock of a session."""
    pg.configure_plan("default", plan(max_spend_per_session=1.0))
    pg.check_guard("ann")
    assert pg.get_usage("ann").session_id is None


def test_the_budget_shows_what_is_left_of_each_limit(pg):
    """Spend caps in dollars, models in tokens; what has no limit is infinite, or ``None`` for a model."""
    limits = {"gpt-4o": ModelLimitConfig(max_tokens_per_period=5000), "gpt-4.1": ModelLimitConfig()}
    pg.configure_plan("default", plan(max_spend_per_period=1.0, model_limits=limits))
    pg.wrap(answer, user_id="ann", model="gpt-4o")
    assert pg.get_remaining_budget("ann") == BudgetRemaining(
        period_spend_remaining=0.96,
        model_tokens_remaining={"gpt-4o": 3000, "gpt-4.1": None},
        most_constrained="model_tokens",
    )


def test_a_user_without_limits_has_an_unbounded_budget(pg):
    """Nothing configured: infinite, and ``unbounded``."""
    assert pg.get_remaining_budget("ann") == BudgetRemaining()


def test_a_budget_counts_the_hard_gate(pg):
    """``hard_gate_at`` moves the end of the budget."""
    pg.configure_plan("default", PlanConfig(max_spend_per_period=1.0, soft_gate_at=0.1, hard_gate_at=0.5))
    spend(pg, "ann", 0.4)
    assert pg.get_remaining_budget("ann").period_spend_remaining == pytest.approx(0.1)
    spend(pg, "ann", 0.4)
    assert pg.get_remaining_budget("ann").period_spend_remaining == 0.0
    assert pg.get_remaining_budget("ann").most_constrained == "period_spend"


def test_model_usage_lists_what_is_used_or_limited(pg):
    """One row per model with usage or a limit, sorted by name."""
    limits = {"gpt-4.1": ModelLimitConfig(max_tokens_per_period=10), "gpt-4o": ModelLimitConfig()}
    pg.configure_plan("default", plan(model_limits=limits))
    pg.wrap(answer, user_id="ann", model="gpt-4o")
    rows = [(row.model, row.tokens_used, row.tokens_limit, row.cost) for row in pg.get_model_usage("ann")]
    assert rows == [("gpt-4.1", 0, 10, 0.0), ("gpt-4o", 2000, None, 0.04)]


def test_usage_of_another_process_is_seen(tmp_path):
    """``get_usage`` asks the ledger: models that this process never met are counted."""
    first = Paygent.init(db_path=tmp_path / "p.db")
    first.wrap(answer, user_id="ann", model="gpt-4o")
    first.shutdown()
    second = Paygent.init(db_path=tmp_path / "p.db")
    assert second.get_usage("ann").period_tokens_by_model == {"gpt-4o": 2000}
    assert [row.model for row in second.get_model_usage("ann")] == ["gpt-4o"]
