"""Processes that are stopped for a while: nothing is concluded from the time that they have not lived."""

from collections import deque
from concurrent.futures import wait

from engine_values import call, plan

from paygent.context import Payer
from paygent.exporter import Asking
from paygent.meter.patience import LOOK_S, Patience
from paygent.meter.queue import LEFT_S
from paygent.meter.wallet import Ask


def stopped(pg, for_s):
    """Have the process of *pg* be stopped once, when the ledger has answered its next lease operation."""
    meter, lost_s = pg._meter, []
    boot, lease = meter.boot, meter.ledger.lease

    def now_s():
        return boot() + sum(lost_s)

    def slow(requests):
        replies = lease(requests)
        lost_s.extend([] if lost_s else [for_s])
        return replies

    meter.boot = now_s
    for part in (meter.gate, meter.queue, meter.desk, meter.exporter, meter.patience):
        part._boot = now_s
    meter.ledger.lease = slow


def test_a_stop_of_the_process_is_no_ledger_that_is_away(init):
    """A caller who finds a long time gone by at his first look looks once more before he goes on alone."""
    pg = init(ledger="memory://")
    meter = pg._meter
    bracket = meter.call(Payer("ada"), "openai", "chat", "m", 0, None)
    wallet = bracket.wallet = meter.wallet("ada")
    ask = Ask(bracket, meter.boot() - 60)
    wallet.asks = deque([ask])
    assert meter.gate._impatient(ask) is ask
    assert not pg.is_degraded
    assert meter.gate._impatient(ask) is None
    assert pg.is_degraded


def test_who_waits_through_a_stop_is_not_turned_away(init):
    """The ledger thread, should it go on first, serves a caller whose time ran out during the stop."""
    pg = init(ledger="memory://")
    pg.configure_plan("default", plan(10))
    stopped(pg, 2.0 + LEFT_S + 1)
    pg._meter.gate._wait = lambda ask: bool(wait((ask.future,), timeout=60).done)
    call(pg)
    pg.flush()
    assert pg.get_usage("ada").period_cost == 0.01


class Asks:
    """A request that the ledger is at, while nobody has a turn at the store."""

    def __init__(self):
        self.now_s, self.asking = 100.0, Asking(100.0, 7)

    def pulse(self):
        return 7


def test_a_stop_between_two_looks_has_seen_nothing():
    """Time that went by between two looks, as none but a stopped process lets it, is not the ledger's."""
    asks = Asks()
    patience = Patience(asks, lambda: asks.now_s)
    asks.now_s += 0.15
    assert not patience.is_over()
    asks.now_s += 60
    assert not patience.is_over()
    asks.now_s += LOOK_S
    assert patience.is_over()
