"""What the simulator found and no other test shows, in as few steps as show it."""

import pytest

from paygent import PaygentLimitExceeded, PlanConfig
from paygent.context import Payer
from paygent.core.usage import Usage
from paygent.ledger import LedgerError
from paygent.ledgers.memory import MemoryLedger
from paygent.meter import accounts
from paygent.meter.meter import Meter
from paygent.meter.options import Options
from paygent.testing.clock import FakeClock


class MayBeAway(MemoryLedger):
    """A ledger that at times cannot be reached."""

    is_away = False

    def lease(self, requests):
        if self.is_away:
            raise LedgerError("away")
        return super().lease(requests)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def ledger(clock):
    return MayBeAway(clock.now_us)


@pytest.fixture
def process(ledger, clock):
    """A function that makes one more process, in which nobody waits for others."""

    def make():
        meter = Meter(ledger, Options(boot=clock.boot, busy_timeout_s=0.0))
        meter.exporter.threaded = False
        return meter

    return make


def limit(ledger, tokens):
    plan = PlanConfig(
        max_spend_per_period=tokens / 1000 + 50e-9,
        cost_rates={"m": {"input": 1.0, "output": 1.0}},
        pre_call_estimate=True,
        reservation_safety_factor=1.0,
    )
    ledger.put_plan("default", plan.model_dump_json())


def begin(meter, tokens):
    """Admit a call of *tokens* and leave it open."""
    call = meter.call(Payer("ada"), "openai", "chat", "m", 0, tokens - 1)
    return call.__enter__()


def test_busy_is_busy_also_right_after_spent(ledger, process, clock):
    """A call that only others stand in the way of is told so, whatever was refused a moment before."""
    limit(ledger, 50)
    begin(process(), 40)
    meter = process()
    for tokens, code in ((60, "period_spend"), (30, "busy")):
        with pytest.raises(PaygentLimitExceeded) as refused:
            begin(meter, tokens)
        assert refused.value.refusal.code == code
        clock.advance(0.05)


def test_a_changed_account_raises_no_lease(ledger, process):
    """What a process has spent beyond its lease stays so when the user's account changes."""
    limit(ledger, 20)
    meter = process()
    kept = begin(meter, 10)
    begin(meter, 5).finish(Usage(input_tokens=18))
    purse = kept.purses[0]
    before = purse.lease
    assert before < purse.held
    ledger.is_away = True
    accounts.put_account(meter, "ada", {"sdk_enabled": True})
    assert purse.lease == before
