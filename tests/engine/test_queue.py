import asyncio
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import pytest
from engine_values import ANSWER, CENT, EXACT, call, plan

from paygent import PaygentLimitExceeded
from paygent.context import Payer, paygent_context
from paygent.core.plan import TOTAL_SPEND
from paygent.core.usage import Usage
from paygent.ledger import LeaseRequest
from paygent.meter import gate
from paygent.meter.call import HELD, Call
from paygent.meter.wallet import Ask


class TimeLimitError(Exception):
    """As those of job queues: raised by a signal, wherever the job is."""


@pytest.fixture
def pg(init):
    """A plan for ten calls of a cent, in memory; who is in another's way gives up soon."""
    pg = init(ledger="memory://", busy_timeout=0.1)
    pg.configure_plan("default", plan(10))
    return pg


def hold_elsewhere(pg, cents=10):
    """Another process holds *cents* of what is left."""
    need = {TOTAL_SPEND: cents * CENT}
    pg._meter.exporter.call(
        lambda ledger: ledger.lease([LeaseRequest("ada", "elsewhere", 1, begin_session=True, need=need)])
    ).result(30)


def queued(pg, count=1):
    """Wait until *count* callers queue."""
    ends_s = time.monotonic() + 30
    while len(pg._meter.wallets["ada"].asks or ()) < count and time.monotonic() < ends_s:
        time.sleep(0.001)


def refused(pg):
    """Make a call that the gate refuses."""
    with pytest.raises(PaygentLimitExceeded):
        call(pg)


def by_hand(init):
    """The ledger thread's work is done where the test puts it."""
    pg = init(ledger="memory://")
    pg._meter.exporter.threaded = False
    pg.configure_plan("default", plan(10))
    return pg


def test_a_manual_event_does_not_queue(init):
    """What is only noted down waits for no room: callers in the queue do not hold it up or lose it."""
    pg = init(ledger="memory://", busy_timeout=30)
    pg.configure_plan("default", plan(10))
    hold_elsewhere(pg)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(call, pg)
        queued(pg)
        assert pg.record_event("ada", cost=0.25) is not None
        assert not waiting.done()
        pg._meter.exporter.call(lambda ledger: ledger.settle((), close=["elsewhere"])).result(30)
        with pytest.raises(PaygentLimitExceeded):
            waiting.result(30)
    assert pg.get_usage("ada").period_cost == pytest.approx(0.25)


def test_a_call_that_only_reports_is_posted_after_its_wait(pg):
    """A report-only call that queued behind others in vain runs, and is counted."""
    hold_elsewhere(pg)
    payer = Payer("ada")
    payer.reports_only = True
    first = threading.Thread(target=refused, args=(pg,))
    first.start()
    queued(pg)
    with pg._meter.call(payer, "openai", "chat", "m", 0, 9) as bracket:
        bracket.finish(Usage(10))
    first.join(30)
    pg.flush()
    assert pg.get_usage("ada").period_cost == pytest.approx(0.01)


def test_a_refusal_belongs_to_who_asked(init):
    """A caller who gave up while the ledger was at his call leaves no refusal to the next in the queue."""
    pg = by_hand(init)
    call(pg)  # the user is known
    pg.flush(give_back=True)
    meter = pg._meter
    wallet = meter.wallets["ada"]
    large = meter.call(Payer("ada"), "openai", "chat", "m", 0, 10_000)
    small = meter.call(Payer("ada"), "openai", "chat", "m", 0, 9)
    asks = [meter.gate._admit(large), meter.gate._admit(small)]
    meter.exporter._seq += 1
    request = wallet.prepare(meter.exporter._seq, meter.boot())
    assert meter.gate._withdraw(asks[0])
    (reply,) = meter.ledger.lease([request])
    assert reply.denied == TOTAL_SPEND
    assert meter.desk.answered(wallet, request, reply)  # the head asks for itself
    meter.exporter.submit(wallet)
    meter.exporter.run_step()
    assert asks[1].future.result(0).name == "HELD"
    small.fail(None)


def test_what_is_left_at_the_end_of_a_server_is_nothing(init, tmp_path):
    """After ``flush(give_back=True)`` no lease, no journal and no event waits; the next call is metered."""
    pg = init()
    pg.configure_plan("default", plan(10))
    call(pg)
    pg.flush(give_back=True)
    assert list(tmp_path.rglob("*.journal")) == []
    leases = pg._meter.exporter.call(lambda ledger: ledger.lease([LeaseRequest("ada", "other", 1)])).result(
        30
    )
    assert (leases[0].sharers, leases[0].others) == (1, {})
    call(pg)
    assert len(list(tmp_path.rglob("*.journal"))) == 1
    assert round(pg.get_usage("ada").period_cost * 100) == 2


def test_a_stretched_session_ends_later_for_its_wallet_too(init):
    """A plan that lets sessions last longer moves the end of the running one, also in what a refusal says."""
    pg = init(ledger="memory://")
    pg.configure_plan("default", plan(10, max_spend_per_session=0.01 + 1e-9, session_timeout_minutes=10))
    call(pg)
    pg.configure_plan("default", plan(10, max_spend_per_session=0.01 + 1e-9, session_timeout_minutes=60))
    with pytest.raises(PaygentLimitExceeded) as refused:
        call(pg)
    ends = refused.value.refusal.resets_at.timestamp()
    assert ends - time.time() == pytest.approx(3600, abs=60)


def test_a_busy_refusal_says_so(pg):
    """Who is only in the way of other calls reads that, and not that a limit of nothing was reached."""
    hold_elsewhere(pg)
    with pytest.raises(PaygentLimitExceeded) as refused, paygent_context("ada"):
        pg.wrap(lambda: ANSWER, user_id="ada", **EXACT)
    message = refused.value.guard_result.message
    assert message.startswith("Busy: other calls in flight")
    assert "$0.00" not in message


def test_an_absurd_size_does_not_keep_the_ledger_busy(init):
    """A call that asks for more tokens than there are is judged in a few steps, and never spins."""
    pg = init(ledger="memory://", busy_timeout=0.05)
    pg.configure_plan("default", plan(10, pre_call_estimate=False))
    heard = []
    lease = pg._meter.ledger.lease
    pg._meter.ledger.lease = lambda requests: heard.append(requests) or lease(requests)
    with pg._meter.call(Payer("ada"), "openai", "chat", "m", 0, 2**55) as bracket:
        bracket.finish(Usage(10))
    assert len(heard) < 20


def test_prices_are_looked_up_before_the_users_lock_is_taken(init):
    """The catalogue, which the first look-up loads, keeps nobody waiting who asks for the same user."""
    pg = init(ledger="memory://")
    pg.configure_plan("default", plan(10))
    wallet = pg._meter.wallet("ada")
    lookup, locked = pg._meter.options.lookup, []

    def watched(model, provider):
        locked.append(wallet.lock.locked())
        return lookup(model, provider)

    pg._meter.options.lookup = watched
    call(pg)
    assert locked
    assert not any(locked)


def asking_for(pg, cents):
    """A caller at the head of the line whose call may cost so much, and the request that speaks for him."""
    meter, wallet = pg._meter, pg._meter.wallets["ada"]
    bracket = meter.call(Payer("ada"), "openai", "chat", "m", 0, 10 * cents - 1)
    bracket.wallet = wallet
    ask = Ask(bracket, meter.boot())
    assert bracket.attempt(wallet, meter.boot()) is None
    wallet.asks = deque([ask])
    return ask, wallet.prepare(meter.exporter._seq + 1, meter.boot())


@pytest.mark.parametrize("is_gone", [False, True], ids=["waits", "gone"])
def test_what_is_granted_past_the_limit_is_for_who_asked(init, is_gone):
    """A grant in full at the end of a cap goes to the one call that it is for, or else to nobody."""
    pg = init(ledger="memory://")
    pg.configure_plan("default", plan(10, pre_call_estimate=False))
    for _ in range(9):
        call(pg)
    pg.flush()
    meter, wallet = pg._meter, pg._meter.wallets["ada"]
    ask, request = asking_for(pg, cents=5)
    if is_gone:
        wallet.asks.clear()
    (reply,) = meter.ledger.lease([request])
    assert sum(reply.lease.values()) > 2 * CENT
    wallet.receive(request, reply, wallet.tariff, meter.boot())
    meter.queue.serve(wallet, None, busy=False)
    purse = wallet.period_purse
    assert ask.future.done() is not is_gone
    assert purse.held == (0 if is_gone else ask.call.need_nusd)
    assert purse.lease - purse.held <= CENT + 1


def test_who_stands_behind_in_line_does_not_wait_for_his_own_stream(init):
    """A call that has not come to its turn is told, too, that nothing but its own stream is in its way."""
    pg = init(ledger="memory://", busy_timeout=3600)
    pg.configure_plan("default", plan(2))
    call(pg)
    meter, wallet = pg._meter, pg._meter.wallets["ada"]
    stream = meter.call(Payer("ada"), "openai", "chat", "m", 0, 9)
    with stream:
        stream.defer()
    nested = Ask(meter.call(Payer("ada"), "openai", "chat", "m", 0, 9), meter.boot(), (stream,))
    wallet.asks, served = deque([nested]), []
    with wallet.lock:
        meter.queue._turn_away_nested(wallet, TOTAL_SPEND, served)
    assert [ask for ask, _ in served] == [nested]
    stream.finish(Usage(10))


def test_what_a_signal_raises_while_a_call_waits_is_the_callers(init, monkeypatch):
    """The time limit of a job ends its wait at the gate: the call is not made, and nothing is held for it."""
    pg = init(ledger="memory://", busy_timeout=30)
    pg.configure_plan("default", plan(10))
    hold_elsewhere(pg)
    made = []

    def interrupted(_futures, timeout):
        raise TimeLimitError

    monkeypatch.setattr(gate, "wait", interrupted)
    with pytest.raises(TimeLimitError):
        pg.wrap(lambda: made.append(1), user_id="ada", **EXACT)
    assert made == []
    wallet = pg._meter.wallets["ada"]
    assert not wallet.asks
    assert not any(purse.held for purse in wallet.purses.values())


def test_what_is_raised_for_one_who_only_reports_reaches_nobody_behind_it(init, caplog):
    """A callback's cancellation on the ledger thread leaves nobody behind it without an answer."""
    pg = by_hand(init)
    line = Call(pg._meter, Payer("ada", None, None, None), "openai", "batch", "m", 0, None)

    def raising():
        raise asyncio.CancelledError

    pg._meter.gate.when_open(line, raising)
    behind = Call(pg._meter, Payer("ada", None, None, None), "openai", "chat", "m", 4, 9)
    ask = pg._meter.gate._admit(behind)
    pg._meter.exporter.run_step()
    assert ask.future.done()
    assert behind.state is HELD
    assert "posting what waited for its user" in caplog.text
