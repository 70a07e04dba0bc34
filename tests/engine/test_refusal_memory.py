"""What is remembered of a refusal: it spares the ledger, and covers no call that may still fit."""

import pytest
from engine_values import ANSWER, EXACT, call, plan

from paygent import Paygent, PaygentLimitExceeded, ProviderRegistry
from paygent._connection import Store
from paygent.context import Payer
from paygent.ledgers.memory import MemoryLedger
from paygent.meter.meter import Meter
from paygent.meter.options import Options
from paygent.meter.queue import SPENT_MEMORY_S
from paygent.testing.clock import FakeClock

RATES = {"m": {"input": 1.0, "output": 1.0}, "n": {"input": 1.0, "output": 1.0}}
HALF = {"object": "chat.completion", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 0}}
LIMITS = [
    {"calls": 1.5},
    {"calls": 100, "max_spend_per_session": 0.015},
    {"calls": 100, "model_limits": {"m": {"max_tokens_per_period": 15}}},
]


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def asked(monkeypatch):
    """Every need that the ledger hears of."""
    heard = []
    lease = MemoryLedger.lease

    def listening(self, requests):
        heard.extend(request.need for request in requests if request.need)
        return lease(self, requests)

    monkeypatch.setattr(MemoryLedger, "lease", listening)
    return heard


@pytest.fixture
def pg(clock, asked):
    """An engine and a ledger on a clock that stands still."""
    ledger = MemoryLedger(now_us=clock.now_us)
    meter = Meter(ledger, Options(boot=clock.boot))
    pg = Paygent._replace(Paygent(meter, ProviderRegistry(), Store(ledger, "a test", None, "")))
    yield pg
    pg.shutdown()


def spend(pg, **config):
    """Make the one call that fits, and one that does not."""
    pg.configure_plan("default", plan(**config))
    call(pg)
    with pytest.raises(PaygentLimitExceeded):
        call(pg)


@pytest.mark.parametrize("config", LIMITS)
def test_a_refusal_is_repeated_without_the_ledger(pg, asked, config):
    """The same call again, at once, is refused for the same reason, and the ledger hears nothing of it."""
    spend(pg, **config)
    needs = len(asked)
    with pytest.raises(PaygentLimitExceeded):
        call(pg)
    assert len(asked) == needs


@pytest.mark.parametrize("config", LIMITS)
def test_a_smaller_call_may_still_fit(pg, config):
    """A refusal of a large call is none of one that needs less than that one."""
    spend(pg, **config)
    assert pg.wrap(lambda: HALF, user_id="ada", **{**EXACT, "estimated_max_tokens": 3}) is HALF


@pytest.mark.parametrize("config", LIMITS)
def test_a_refusal_is_forgotten_soon(pg, asked, clock, config):
    """A quarter of a second later the ledger is asked again."""
    spend(pg, **config)
    needs = len(asked)
    clock.advance(SPENT_MEMORY_S)
    with pytest.raises(PaygentLimitExceeded):
        call(pg)
    assert len(asked) > needs


def test_a_refusal_of_one_model_is_none_of_another(pg):
    """While one model's tokens are spent, the first call of another model is admitted."""
    limits = {"m": {"max_tokens_per_period": 15}, "n": {"max_tokens_per_period": 15}}
    spend(pg, calls=100, cost_rates=RATES, model_limits=limits)
    assert call(pg, model="n") is ANSWER


def test_a_refusal_of_one_model_is_none_of_a_call_without_a_model(pg):
    """A call whose model only the answer names is not refused for the tokens of another call's model."""
    spend(pg, calls=100, model_limits={"m": {"max_tokens_per_period": 15}})
    assert call(pg, model=None) is ANSWER


def test_a_refusal_is_none_of_what_is_only_noted_down(pg):
    """What was spent elsewhere is recorded while a limit is spent and a call runs beyond it."""
    pg.configure_plan("default", plan(1, max_spend_per_period=0.01, pre_call_estimate=False))
    call(pg)
    payer = Payer("ada")
    payer.reports_only = True
    with pg._meter.call(payer, "openai", "chat", "m", 0, 9) as beyond:
        assert pg._meter.wallets["ada"].refused is not None
        assert pg.record_event("ada", cost=0.25) is not None
        beyond.fail(None)
    assert pg.get_usage("ada").period_cost == pytest.approx(0.26)
