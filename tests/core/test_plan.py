import decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paygent.core.balance import UNLIMITED
from paygent.core.models import ModelLimitConfig, PlanConfig
from paygent.core.plan import MODEL_LIMIT, NO_LIMIT, SESSION_SPEND, TOTAL_SPEND, Limit, compile_plan


def compiled(**config):
    return compile_plan("p", PlanConfig(**config))


@pytest.mark.parametrize(
    "usd, hard_gate_at, nusd",
    [
        (10.0, 1.0, 10_000_000_000),
        (0.1, 1.0, 100_000_000),
        (0.29, 1.0, 290_000_000),
        (1e-9, 1.0, 1),
        (1.5e-9, 1.0, 1),
        (9.99, 0.9, 8_991_000_000),
        (1e-9, 0.99, 0),
        (0.0, 1.0, 0),
        (4_000_000_000.000000001, 1.0, 4 * 10**18),
    ],
)
def test_a_cap_is_rounded_down_to_whole_nano_dollars(usd, hard_gate_at, nusd):
    """The hard mark is the cap as it is written in decimal, times the share, rounded down."""
    plan = compiled(max_spend_per_period=usd, hard_gate_at=hard_gate_at, soft_gate_at=0.0)
    assert plan.period.hard == nusd


def test_each_limit_is_one_scope():
    """Period, session and each model's tokens have their limit; what a plan does not limit is unlimited."""
    plan = compiled(
        max_spend_per_period=2.0,
        max_spend_per_session=1.0,
        model_limits={"m": ModelLimitConfig(max_tokens_per_period=1000), "n": ModelLimitConfig()},
        soft_gate_at=0.5,
    )
    assert plan.limit_of(TOTAL_SPEND) == Limit(2 * 10**9, 10**9, 2 * 10**9)
    assert plan.limit_of(SESSION_SPEND) == Limit(10**9, 5 * 10**8, 10**9)
    assert plan.limit_of(MODEL_LIMIT + "m") == Limit(1000, 500, 1000)
    for scope in (MODEL_LIMIT + "n", MODEL_LIMIT + "x", "model_cost:m", "anything"):
        assert plan.limit_of(scope) is NO_LIMIT


def test_a_plan_without_limits_says_so():
    """A plan is unlimited where nothing at all is limited."""
    assert compiled().unlimited
    assert compiled(model_limits={"m": ModelLimitConfig()}).unlimited
    assert not compiled(max_spend_per_period=1e9).unlimited
    assert not compiled(model_limits={"m": {"max_tokens_per_period": 0}}).unlimited


def test_a_cap_beyond_every_amount_is_unlimited():
    """A finite cap that no amount can reach is a limit all the same, and never negative or too large."""
    plan = compiled(max_spend_per_period=1e300)
    assert plan.period == Limit(UNLIMITED, UNLIMITED, UNLIMITED)


def test_a_plan_lists_models_if_it_names_any():
    """Naming a model, by limit or by rate, makes a plan one that lists its models."""
    assert not compiled(default_cost_rate={"input": 1, "output": 1}).lists_models
    assert compiled(model_limits={"m": {}}).lists_models
    assert compiled(cost_rates={"m": {"input": 1, "output": 1}}).lists_models


def test_the_callers_decimal_context_changes_nothing():
    """A thread that works with few digits gets the same limits."""
    with decimal.localcontext() as context:
        context.prec = 3
        context.rounding = decimal.ROUND_UP
        plan = compiled(max_spend_per_period=1234.56789, hard_gate_at=0.99)
    assert plan.period.hard == int(Fraction("1234.56789") * 10**9 * Fraction("0.99"))


@given(
    usd=st.floats(0, 1e9, allow_nan=False),
    soft=st.floats(0, 1),
    hard=st.floats(0, 1),
)
def test_marks_are_exact_and_in_order(usd, soft, hard):
    """Soft is never above hard, hard never above the cap, and each is the exact product rounded down."""
    soft, hard = sorted((soft, hard))
    limit = compiled(max_spend_per_period=usd, soft_gate_at=soft, hard_gate_at=hard).period
    assert 0 <= limit.soft <= limit.hard <= limit.cap
    assert limit.hard == int(Fraction(str(usd)) * 10**9 * Fraction(str(hard)))
