"""Users who call no more: what they leased goes back, and they leave memory, unless something is open."""

import gc

import pytest
from engine_values import call, plan

from paygent import Paygent, ProviderRegistry
from paygent._connection import Store
from paygent.context import Payer
from paygent.core.usage import Usage
from paygent.ledgers.memory import MemoryLedger
from paygent.meter.desk import CACHED_S
from paygent.meter.meter import Meter
from paygent.meter.options import Options
from paygent.meter.wallet import IDLE_S
from paygent.testing.clock import FakeClock


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def pg(clock):
    """An engine whose clock and whose ledger thread's steps are the test's."""
    ledger = MemoryLedger(now_us=clock.now_us)
    meter = Meter(ledger, Options(boot=clock.boot))
    meter.exporter.threaded = False
    pg = Paygent._replace(Paygent(meter, ProviderRegistry(), Store(ledger, "a test", None, "")))
    pg.configure_plan("default", plan(10_000))
    yield pg
    pg.shutdown()


def pass_time(pg, clock, seconds):
    """Let time pass, a second and a tick at a time."""
    for _ in range(int(seconds) + 1):
        clock.advance(1)
        pg._meter.exporter.run_step()


def test_who_calls_no_more_leaves_memory(pg, clock):
    """A user who has not called for long, and has nothing open, is not kept."""
    call(pg)
    pass_time(pg, clock, CACHED_S - 2)
    assert list(pg._meter.wallets) == ["ada"]
    pass_time(pg, clock, 2)
    assert pg._meter.wallets == {}


def test_who_has_left_memory_comes_back(pg, clock):
    """His next call goes on from what the ledger has of him."""
    call(pg)
    pass_time(pg, clock, CACHED_S + 1)
    call(pg)
    assert pg.get_usage("ada").period_cost == pytest.approx(0.02)


def test_a_call_in_flight_keeps_its_user_in_memory(pg, clock):
    """However long a call runs, what it holds is not forgotten."""
    with pg._meter.call(Payer("ada"), "openai", "chat", "m", 0, 9) as bracket:
        pass_time(pg, clock, CACHED_S + 5)
        assert list(pg._meter.wallets) == ["ada"]
        bracket.finish(Usage(10))
    assert pg.get_usage("ada").period_cost == pytest.approx(0.01)


def test_a_call_in_flight_that_holds_nothing_keeps_its_user_in_memory(pg, clock):
    """Nor is one forgotten whose price is not known: it is posted to the wallet that it began in."""
    pg.configure_plan("default", plan(10_000, cost_rates={"m": {"input": 0.0, "output": 0.0}}))
    with pg._meter.call(Payer("ada"), "openai", "chat", "m", 0, 9) as bracket:
        pass_time(pg, clock, CACHED_S + 5)
        assert pg._meter.wallets["ada"] is bracket.wallet
        bracket.finish(Usage(10))


def test_a_state_that_the_app_holds_keeps_its_user_in_memory(pg, clock):
    """The live state of a user goes on telling of him for as long as somebody has it."""
    call(pg)
    state = pg.get_user_state("ada")
    pass_time(pg, clock, CACHED_S + 5)
    assert list(pg._meter.wallets) == ["ada"]
    del state
    gc.collect()
    pass_time(pg, clock, 2)
    assert pg._meter.wallets == {}


def test_the_purse_of_a_model_that_was_never_answered_is_dropped(pg, clock):
    """A call that failed leaves no purse of its model behind: users choose the names."""
    pg.configure_plan("default", plan(10_000, model_limits={"m": {"max_tokens_per_period": 1000}}))
    with pg._meter.call(Payer("ada"), "openai", "chat", "m", 0, 9) as bracket:
        bracket.fail(None)
    wallet = bracket.wallet
    assert any(purse.scope == "model_limit:m" for purse in wallet.purses.values())
    pass_time(pg, clock, IDLE_S + 2)
    assert not any(purse.scope == "model_limit:m" for purse in wallet.purses.values())
