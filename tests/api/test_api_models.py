"""The public models: JSON, unknown fields, and what is refused at construction."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from pydantic import ValidationError

import paygent
from paygent import (
    BillingPeriod,
    BudgetRemaining,
    CurrentUsage,
    GateEvent,
    GuardResult,
    MaxTokensAdvice,
    ModelCostRate,
    ModelLimitConfig,
    ModelUsage,
    PlanConfig,
    UsageEvent,
    UserState,
)

NOW = datetime(2026, 3, 10, 12, tzinfo=timezone.utc)
INFINITY = float("inf")
PLAN = PlanConfig(
    model_limits={"gpt-4o": ModelLimitConfig(), "m": ModelLimitConfig(max_tokens_per_period=0)},
    cost_rates={"gpt-4o": ModelCostRate(input=0.01, output=0.03, per_call=1)},
    default_cost_rate=ModelCostRate(input=0, output=0),
    tool_costs={"search": 0.5},
)
PERIOD = BillingPeriod(start=NOW, end=NOW + timedelta(days=30))
USAGE = CurrentUsage(period_cost=1.5, session_started_at=NOW, period_tokens_by_model={"gpt-4o": 3})
VALUES = [
    PLAN,
    PlanConfig(),
    PlanConfig(max_spend_per_period=0),
    ModelCostRate(input=1, output=2),
    ModelLimitConfig(),
    GuardResult(status="soft_gate", limit_value=INFINITY),
    UsageEvent(id="1", user_id="ann", timestamp=NOW, metadata={"a": [1, None]}, tool_calls=["x"]),
    GateEvent(id="1", user_id="ann", timestamp=NOW, status="hard_gate", limit_value=INFINITY),
    USAGE,
    ModelUsage(model="gpt-4o"),
    PERIOD,
    UserState(user_id="ann", plan="pro", plan_config=PLAN, current_usage=USAGE, billing_period=PERIOD),
    BudgetRemaining(model_tokens_remaining={"gpt-4o": None}),
    MaxTokensAdvice(max_tokens=5, binding_limit="model_tokens"),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_model_survives_json(value):
    """``model_dump_json`` and ``model_validate_json`` give an equal model, infinite limits included."""
    assert type(value).model_validate_json(value.model_dump_json()) == value


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_model_survives_a_dict(value):
    """``model_dump`` and ``model_validate`` give an equal model."""
    assert type(value).model_validate(value.model_dump()) == value


def test_an_unlimited_amount_is_null_in_json():
    """JSON has no infinity: an infinite cap is written as ``null``."""
    assert '"max_spend_per_period":null' in PlanConfig().model_dump_json()


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_an_unknown_field_is_refused_in_user_code(value):
    """A misspelt field is named, rather than silently unlimited."""
    with pytest.raises(ValidationError, match="surprise"):
        type(value)(**{**value.model_dump(), "surprise": 1})


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_an_unknown_field_is_ignored_in_a_backend_answer(value):
    """``from_backend`` reads the answer of a newer backend."""
    assert type(value).from_backend({**value.model_dump(), "surprise": 1}) == value


def test_unknown_fields_are_ignored_at_any_depth():
    """Also what lies within a plan of a backend answer may be new."""
    given = {"model_limits": {"gpt-4o": {"max_tokens_per_period": 5, "surprise": 1}}}
    assert PlanConfig.from_backend(given).model_limits["gpt-4o"].max_tokens_per_period == 5


@pytest.mark.parametrize(
    "fields, named",
    [
        ({"hard_gate_at": 80}, "hard_gate_at"),
        ({"soft_gate_at": 80}, "soft_gate_at"),
        ({"soft_gate_at": 0.9, "hard_gate_at": 0.8}, "soft_gate_at.*hard_gate_at"),
        ({"soft_gate_at": -0.1}, "soft_gate_at"),
        ({"hard_gate_at": float("nan")}, "hard_gate_at"),
        ({"max_spend_per_period": -1}, "max_spend_per_period"),
        ({"max_spend_per_period": float("nan")}, "max_spend_per_period"),
        ({"max_spend_per_session": -0.01}, "max_spend_per_session"),
        ({"max_spend_per_month": 5}, "max_spend_per_month"),
        ({"default_tool_cost": -1}, "default_tool_cost"),
        ({"default_tool_cost": float("inf")}, "default_tool_cost"),
        ({"tool_costs": {"search": float("nan")}}, "tool_costs.search"),
        ({"model_limits": {"gpt-4o": {"max_tokens_per_period": -1}}}, "model_limits.gpt-4o"),
        ({"cost_rates": {"gpt-4o": {"input": -1, "output": 1}}}, "cost_rates.gpt-4o.input"),
        ({"session_timeout_minutes": 0}, "session_timeout_minutes"),
        ({"session_timeout_minutes": float("inf")}, "session_timeout_minutes"),
        ({"pre_call_buffer_tokens": -1}, "pre_call_buffer_tokens"),
        ({"reservation_safety_factor": -1}, "reservation_safety_factor"),
        ({"reservation_safety_factor": float("nan")}, "reservation_safety_factor"),
    ],
    ids=str,
)
def test_a_plan_that_cannot_be_right_is_refused(fields, named):
    """The message names the field."""
    with pytest.raises(ValueError, match=f"(?s){named}"):
        PlanConfig(**fields)


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
@pytest.mark.parametrize("field", list(ModelCostRate.model_fields))
def test_a_rate_that_cannot_be_right_is_refused(field, value):
    """Negative, NaN and infinite rates are named."""
    with pytest.raises(ValueError, match=field):
        ModelCostRate(**{"input": 1, "output": 1, field: value})


def test_a_negative_model_limit_is_refused():
    """A limit of tokens is zero or more."""
    with pytest.raises(ValueError, match="max_tokens_per_period"):
        ModelLimitConfig(max_tokens_per_period=-1)


@pytest.mark.parametrize(
    "start, end, named",
    [
        (NOW.replace(tzinfo=None), NOW + timedelta(days=1), "start"),
        (NOW, (NOW + timedelta(days=1)).replace(tzinfo=None), "end"),
        (NOW, NOW, "end must be after start"),
        (NOW, NOW - timedelta(days=1), "end must be after start"),
    ],
    ids=["naive start", "naive end", "empty", "reversed"],
)
def test_a_billing_period_that_cannot_be_right_is_refused(start, end, named):
    """Naive and reversed periods are refused at construction."""
    with pytest.raises(ValueError, match=named):
        BillingPeriod(start=start, end=end)


def test_a_refused_assignment_changes_nothing():
    """A plan whose assignment is refused is what it was."""
    config = PlanConfig(soft_gate_at=0.5)
    with pytest.raises(ValueError, match="soft_gate_at"):
        config.hard_gate_at = 0.4
    assert config == PlanConfig(soft_gate_at=0.5)


@pytest.mark.parametrize("name", ["GuardResult", "CurrentUsage", "PlanConfig"])
def test_models_with_equal_content_are_equal(name):
    """Models are values."""
    assert getattr(paygent, name)() == getattr(paygent, name)()
