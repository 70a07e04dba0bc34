"""One wallet and its operations on the ledger, one by one: what is kept, what is handed back, what fails."""

import pytest
from engine_values import CENT, call, plan

from paygent import Paygent, PaygentLimitExceeded, ProviderRegistry
from paygent._connection import Store
from paygent.context import Payer
from paygent.core.plan import SESSION_SPEND, TOTAL_SPEND
from paygent.ledger import GRANT_TTL_S
from paygent.ledgers.memory import MemoryLedger
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
    yield pg
    pg.shutdown()


def known(pg, **config):
    """The wallet of a user whose first call is settled; far from his limits, he has leased ahead."""
    pg.configure_plan("default", plan(**{"calls": 10_000, "max_spend_per_session": 50.0, **config}))
    call(pg)
    pg._meter.exporter.run_step()
    return pg._meter.wallets["ada"]


def operation(pg, wallet):
    """The next operation of *wallet*, not sent yet."""
    pg._meter.exporter._seq += 1
    return wallet.prepare(pg._meter.exporter._seq, pg._meter.boot())


def kept(pg, wallet):
    """The scopes on which the next operation keeps something that no call holds."""
    request = operation(pg, wallet)
    return {bucket[0] for bucket, amount in request.keep.items() if amount > request.held[bucket]}


def test_a_user_who_calls_keeps_what_is_idle(pg, clock):
    """Five seconds after his last call a user still has his lease, and a moment later none."""
    wallet = known(pg)
    clock.advance(IDLE_S)
    assert kept(pg, wallet) == {TOTAL_SPEND, SESSION_SPEND}
    wallet.failed()
    clock.advance(0.001)
    assert kept(pg, wallet) == set()


def test_past_its_deadline_nothing_idle_is_kept(pg, clock):
    """A lease that others may have got since is not claimed, though its user goes on calling."""
    wallet = known(pg)
    clock.advance(GRANT_TTL_S)
    wallet.touched_s = clock.boot()
    assert kept(pg, wallet) == set()


def test_at_the_end_of_a_session_its_lease_is_dropped(pg, clock):
    """At the moment in which a session ends its idle lease is dropped; that of the period is not."""
    wallet = known(pg, session_timeout_minutes=0.05)
    clock.advance(3)
    assert wallet.now_us(clock.boot()) == wallet.session.window.end_us
    assert kept(pg, wallet) == {TOTAL_SPEND}


def test_to_others_who_want_it_all_that_is_idle_is_handed_back(pg):
    """Where the ledger says that others wait nothing idle is kept, and no more is asked for ahead."""
    wallet = known(pg)
    wallet.contended = True
    wallet.want = (None, {TOTAL_SPEND: CENT})
    request = operation(pg, wallet)
    assert (request.keep, request.want) == ({}, {})


def test_a_failed_operation_leaves_the_lease_to_its_holds(pg):
    """What was held without a grant is no lease once its call is gone: the next call has to ask."""
    pg.configure_plan("default", plan(1))
    call(pg)
    payer = Payer("ada")
    payer.reports_only = True
    with pg._meter.call(payer, "openai", "chat", "m", 0, 9) as bracket:
        wallet = bracket.wallet
        operation(pg, wallet)
        wallet.failed()
        bracket.fail(None)
    assert not wallet.idle_lease
    assert wallet.period_purse.lease == 0
    with pytest.raises(PaygentLimitExceeded):
        call(pg)


def test_a_failed_operation_changes_no_amount(pg):
    """After it the idle lease, the open holds, the events and what was posted are what they were."""
    wallet = known(pg)
    call(pg)
    purse, events = wallet.period_purse, list(wallet.events)
    before = purse.held, purse.posted, purse.unsettled
    sent = operation(pg, wallet)
    lease = purse.lease
    wallet.failed()
    assert (purse.held, purse.posted, purse.unsettled) == before
    assert purse.lease == lease == sent.keep[purse.bucket]
    assert wallet.events == events == sent.events


def test_one_operation_is_under_way_at_a_time(pg):
    """A second one is not begun before the first has come back."""
    wallet = known(pg)
    assert operation(pg, wallet) is not None
    assert operation(pg, wallet) is None
    wallet.failed()
    assert operation(pg, wallet) is not None


def test_what_has_no_limit_is_nothing_to_hand_back(pg):
    """Once what is limited was handed back nothing is idle: an unlimited scope is not leased."""
    wallet = known(pg, max_spend_per_session=float("inf"))
    assert wallet.idle_lease
    wallet.contended = True
    operation(pg, wallet)
    assert not wallet.idle_lease


@pytest.mark.parametrize(
    "sharers, lease, idle", [(1, 600, 200), (2, 600, 100), (1, 250, 150), (1, 150, 50), (1, 90, 0)]
)
def test_what_is_kept_idle_is_a_share_of_the_room(pg, sharers, lease, idle):
    """At most what is idle, and half of what limit, spending and holds leave, divided by who shares it."""
    wallet = known(pg)
    purse = wallet.period_purse
    purse.hard, purse.posted, purse.unsettled, purse.held, purse.others = 1000, 350, 50, 100, 100
    purse.lease, wallet.sharers = lease, sharers
    assert operation(pg, wallet).keep[purse.bucket] == 100 + idle
