"""What one call reserves before it is made, to the nano-dollar and the token."""

import pytest
from engine_values import plan

from paygent import PaygentLimitExceeded
from paygent.context import Payer
from paygent.core.bounds import CALL_TOKENS_MAX
from paygent.core.usage import Usage

RATES = {"m": {"input": 1.0, "output": 1.0}, "n": {"input": 1.0, "output": 3.0}}


def held(pg, model="m", cap=9, units=None, provider="openai"):
    """What a call holds of money and of tokens."""
    with pg._meter.call(Payer("ada"), provider, "chat", model, 0, cap, units) as bracket:
        amounts = bracket.need_nusd, bracket.need_tokens
        bracket.fail(None)
    return amounts


@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_a_call_reserves_its_input_and_its_cap(init, factor):
    """One token of input and the cap of the output, at their rates, times the plan's factor."""
    pg = init(ledger="memory://")
    pg.configure_plan("default", plan(1e6, cost_rates=RATES, reservation_safety_factor=factor))
    assert held(pg, "n") == (28_000_000 * factor + 1, 10 * factor)


def test_a_cap_beyond_reason_reserves_what_a_call_may_use_at_most(init):
    """A cap in the millions of millions is cut, and neither ignored nor taken as it is."""
    pg = init(ledger="memory://")
    pg.configure_plan("default", plan(1e12))
    assert held(pg, cap=10**12)[1] == 1 + CALL_TOKENS_MAX


def test_a_call_without_a_cap_reserves_the_plans_buffer(init):
    """While nothing was learned, the output is what the plan says of calls without a cap."""
    pg = init(ledger="memory://")
    pg.configure_plan("default", plan(1e6, pre_call_buffer_tokens=123))
    assert held(pg, cap=None) == (124_000_001, 124)


def test_an_unnamed_model_reserves_at_the_dearest_rate(init):
    """A call whose model only the answer will name holds what the plan's dearest one would cost."""
    pg = init(ledger="memory://")
    pg.configure_plan("default", plan(1e6, cost_rates=RATES))
    assert held(pg, model=None) == (28_000_001, 0)


def test_pictures_are_reserved_at_their_price(init):
    """What a request says of other units than text is priced as such."""
    pg = init(ledger="memory://")
    rates = {"draw": {"input": 1.0, "output": 1.0, "per_image": 0.04}}
    pg.configure_plan("default", plan(1e6, cost_rates=rates))
    assert held(pg, "draw", units=Usage(images=2))[0] == 80_000_001


def test_text_for_a_model_without_a_rate_for_it_is_refused(init):
    """A model that is priced by the picture has no price for text: under a finite cap it is not called."""
    pg = init(ledger="memory://")
    pg.configure_plan("default", plan(100, cost_rates={}))
    with pytest.raises(PaygentLimitExceeded) as refused:
        held(pg, "dall-e-3")
    assert refused.value.guard_result.gate_reason == "model_limit:dall-e-3"


def test_a_model_without_a_price_is_called_where_the_app_says_so(init):
    """With ``unpriced="allow"`` it reserves no money, and its tokens."""
    pg = init(ledger="memory://", unpriced="allow")
    pg.configure_plan("default", plan(100, cost_rates={}))
    assert held(pg, "unheard-of") == (0, 10)


def test_a_model_without_a_price_is_called_where_no_money_is_limited(init):
    """A plan that limits no spending needs no prices."""
    pg = init(ledger="memory://")
    pg.configure_plan("default", plan(1, cost_rates={}, max_spend_per_period=float("inf")))
    assert held(pg, "unheard-of") == (0, 10)
