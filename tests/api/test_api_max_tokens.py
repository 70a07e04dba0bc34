"""``get_max_tokens``: its advice is honoured by the gate, and passes no limit."""

from __future__ import annotations

import math

import pytest
from api_world import MESSAGES, World, answer, openai_client, plan, spend
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paygent import ModelCostRate, ModelLimitConfig, PaygentLimitExceeded, PlanConfig, paygent_context

rates = st.decimals(min_value="0.00001", max_value="0.2", places=5).map(float)
plans = st.builds(
    PlanConfig,
    max_spend_per_period=st.one_of(st.just(math.inf), st.floats(0, 2)),
    max_spend_per_session=st.one_of(st.just(math.inf), st.floats(0, 2)),
    hard_gate_at=st.sampled_from([1.0, 0.95, 0.8]),
    cost_rates=st.fixed_dictionaries({"gpt-4o": st.builds(ModelCostRate, input=rates, output=rates)}),
    model_limits=st.one_of(
        st.just({}),
        st.fixed_dictionaries(
            {"gpt-4o": st.builds(ModelLimitConfig, max_tokens_per_period=st.integers(0, 20_000))}
        ),
    ),
    pre_call_estimate=st.booleans(),
    reservation_safety_factor=st.sampled_from([0.0, 0.5, 1.0, 1.2, 2.0]),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    config=plans,
    spent=st.floats(0, 1.5),
    input_tokens=st.integers(0, 5000),
    hard_cap=st.integers(1, 50_000),
)
def test_a_call_made_with_the_advice_is_admitted_and_passes_no_limit(config, spent, input_tokens, hard_cap):
    """A call that uses its whole input and ``max_tokens`` ends at or below every limit."""
    world = World()
    try:
        world.pg.configure_plan("default", config)
        spend(world.pg, "ann", spent)
        advice = world.pg.get_max_tokens(
            "ann", "gpt-4o", estimated_input_tokens=input_tokens, hard_cap=hard_cap
        )
        assert advice.max_tokens <= hard_cap
        if advice.max_tokens == 0:
            assert advice.binding_limit == "blocked"
            return
        world.call(
            result=answer(input_tokens, advice.max_tokens),
            estimated_input_tokens=input_tokens,
            estimated_max_tokens=advice.max_tokens,
        )
        usage = world.pg.get_usage("ann")
        assert usage.period_cost <= config.max_spend_per_period * config.hard_gate_at + 1e-9
        assert usage.session_cost <= config.max_spend_per_session * config.hard_gate_at + 1e-9
        limit = config.model_limits.get("gpt-4o", ModelLimitConfig()).max_tokens_per_period
        if limit is not None:
            assert usage.period_tokens_by_model["gpt-4o"] <= int(limit * config.hard_gate_at)
    finally:
        world.pg.shutdown()


@pytest.mark.parametrize("exact", [True, False])
def test_the_advice_fits_a_real_call(pg, exact):
    """Messages are counted as the gate counts them: the real SDK call with the advice is admitted."""
    config = plan(max_spend_per_period=0.01, pre_call_estimate=exact)
    pg.configure_plan("default", config)
    messages = [*MESSAGES, {"role": "user", "content": [{"type": "text", "text": "x" * 400}]}]
    advice = pg.get_max_tokens("ann", "gpt-4o", messages=messages)
    assert 0 < advice.max_tokens < 4096
    client = openai_client(answer(100, advice.max_tokens))
    with paygent_context("ann"):
        client.chat.completions.create(model="gpt-4o", messages=messages, max_tokens=advice.max_tokens)
    assert pg.get_usage("ann").period_cost <= 0.01


def test_one_token_more_than_the_advice_is_refused(pg):
    """Under ``pre_call_estimate`` the advice is the largest that fits, not a token less."""
    pg.configure_plan("default", plan(max_spend_per_period=0.1, pre_call_estimate=True))
    most = pg.get_max_tokens("ann", "gpt-4o", estimated_input_tokens=1000).max_tokens
    with pytest.raises(PaygentLimitExceeded):
        pg.wrap(
            answer, user_id="ann", model="gpt-4o", estimated_input_tokens=1000, estimated_max_tokens=most + 1
        )


def test_without_limits_the_hard_cap_is_the_advice(pg):
    """An unlimited user may use as much as the caller allows."""
    assert pg.get_max_tokens("ann", "gpt-4o").max_tokens == 4096
    advice = pg.get_max_tokens("ann", "gpt-4o", hard_cap=77)
    assert (advice.max_tokens, advice.binding_limit) == (77, "unbounded")


def test_the_advice_names_the_limit_that_binds(pg):
    """The tightest limit is named, with what is left of each."""
    limits = {"gpt-4o": ModelLimitConfig(max_tokens_per_period=1200)}
    pg.configure_plan("default", plan(max_spend_per_period=5, model_limits=limits))
    advice = pg.get_max_tokens("ann", "gpt-4o", estimated_input_tokens=100)
    assert (advice.max_tokens, advice.binding_limit) == (900, "model_tokens")
    assert (advice.period_spend_remaining, advice.model_tokens_remaining) == (5.0, 1200)


@pytest.mark.parametrize(
    "config, model",
    [
        (plan(max_spend_per_period=0), "gpt-4o"),
        (plan(), "gpt-4.1"),
        (PlanConfig(max_spend_per_period=1), "house-model"),
    ],
    ids=["spent", "not in the plan", "no price"],
)
def test_a_call_that_would_be_refused_is_advised_against(pg, config, model):
    """Where the gate would refuse whatever the size, the advice is 0 and ``blocked``."""
    pg.configure_plan("default", config)
    advice = pg.get_max_tokens("ann", model)
    assert (advice.max_tokens, advice.binding_limit) == (0, "blocked")


def test_longer_messages_leave_less(pg):
    """Messages are estimated where no count is given; the larger of both counts."""
    pg.configure_plan("default", plan(max_spend_per_period=0.1))
    short = pg.get_max_tokens("ann", "gpt-4o", messages=MESSAGES).max_tokens
    long = pg.get_max_tokens("ann", "gpt-4o", messages=[{"role": "user", "content": "x" * 4000}]).max_tokens
    explicit = pg.get_max_tokens("ann", "gpt-4o", messages=MESSAGES, estimated_input_tokens=2000).max_tokens
    assert short > long > explicit


def test_holds_of_other_calls_count(pg):
    """A call in flight takes its share of the advice."""
    pg.configure_plan("default", plan(max_spend_per_period=0.1))
    before = pg.get_max_tokens("ann", "gpt-4o").max_tokens
    during = []

    def call():
        during.append(pg.get_max_tokens("ann", "gpt-4o").max_tokens)
        return answer(1, 1)

    pg.wrap(call, user_id="ann", model="gpt-4o", estimated_input_tokens=1, estimated_max_tokens=1000)
    assert during[0] == pytest.approx(before - 1000, abs=2)


def test_an_internal_error_advises_against_the_call(pg, monkeypatch):
    """A fault of ours must not invite spending: 0 and ``blocked``."""
    monkeypatch.setattr("paygent.meter.advice.budget", lambda *args: 1 / 0)
    advice = pg.get_max_tokens("ann", "gpt-4o")
    assert (advice.max_tokens, advice.binding_limit) == (0, "blocked")
