"""The gate, step by step: who queues behind whom, who goes away, and what is judged without the ledger."""

import asyncio
import uuid

import pytest
from engine_values import CENT, EXACT, call, plan

from paygent import Paygent, PaygentLimitExceeded, ProviderRegistry
from paygent._connection import Store
from paygent.context import Payer
from paygent.core.plan import TOTAL_SPEND
from paygent.core.usage import Usage
from paygent.ledger import LeaseRequest
from paygent.ledgers.memory import MemoryLedger
from paygent.meter.meter import Meter
from paygent.meter.options import Options
from paygent.testing.clock import FakeClock


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def pg(clock):
    """An engine whose clock and whose ledger thread's steps are the test's."""
    ledger = MemoryLedger(now_us=clock.now_us)
    meter = Meter(ledger, Options(boot=clock.boot, busy_timeout_s=0.5))
    meter.exporter.threaded = False
    pg = Paygent._replace(Paygent(meter, ProviderRegistry(), Store(ledger, "a test", None, "")))
    yield pg
    pg.shutdown()


def bracket(pg, cents=1, session=None):
    """A call that needs so many cents, not begun yet."""
    return pg._meter.call(Payer("ada", session), "openai", "chat", "m", 0, 10 * cents - 1)


def test_a_small_call_does_not_pass_a_large_one_that_waits(pg):
    """Who comes later queues, also where there is room for him: else a large call might wait for ever."""
    pg.configure_plan("default", plan(4))
    first, large, small = bracket(pg), bracket(pg, 4), bracket(pg)
    pg._meter.gate.begin(first)
    assert first.wallet.period_purse.lease > 2 * CENT + 2
    assert pg._meter.gate._admit(large) is not None
    assert pg._meter.gate._admit(small) is not None
    assert small.state.name == "NEW"
    first.fail(None)


def test_who_is_served_while_he_gives_up_is_served_once(pg, clock):
    """A caller whose time is over in the moment in which he is let in goes on, with one hold."""
    pg.configure_plan("default", plan(1))
    first, waiting = bracket(pg), bracket(pg)
    gate = pg._meter.gate
    gate.begin(first)
    ask = gate._admit(waiting)
    clock.advance(10)
    assert gate._impatient(ask) is ask
    first.fail(None)
    pg._meter.exporter.run_step()
    assert gate._impatient(ask) is None
    assert waiting.state.name == "HELD"
    assert waiting.wallet.period_purse.held == waiting.need_nusd
    waiting.fail(None)


def test_a_user_judged_alone_is_asked_about_later(pg):
    """What was decided without the ledger is told to it, and asked of it, as soon as it is there."""
    pg.configure_plan("default", plan(1))
    call(pg)
    pg._meter.exporter.flush()
    pg._meter.exporter.run_step()
    wallet = pg._meter.wallets["ada"]
    assert not wallet.is_due(pg._meter.boot())
    pg._meter.degraded = True
    with pytest.raises(PaygentLimitExceeded):
        call(pg)
    assert wallet.is_due(pg._meter.boot())


def test_alone_a_session_has_the_name_that_was_given(pg):
    """Without the ledger a named session keeps its name, and a default one gets a name of its own."""
    pg.configure_plan("default", plan(10))
    pg._meter.degraded = True
    for session in ("own", None):
        call(pg, session_id=session)
    own, default = (event.session_id for event in pg._meter.wallets["ada"].events)
    assert own == "own"
    assert str(uuid.UUID(default)) == default


def test_a_call_that_only_reports_is_posted_to_a_session_nobody_has_asked_for(init):
    """A report-only call that queued in vain before the ledger heard of its session is counted."""
    pg = init(ledger="memory://", busy_timeout=0.05)
    pg.configure_plan("default", plan(10))
    elsewhere = LeaseRequest("ada", "elsewhere", 1, begin_session=True, need={TOTAL_SPEND: 10 * CENT})
    pg._meter.exporter.call(lambda ledger: ledger.lease([elsewhere])).result(30)
    payer = Payer("ada", "own")
    payer.reports_only = True
    ask = pg._meter.gate._admit(bracket(pg))
    with pg._meter.call(payer, "openai", "chat", "m", 0, 9) as one:
        one.finish(Usage(10))
    pg._meter.gate._withdraw(ask)
    (event,) = one.wallet.events or pg._meter.exporter.call(lambda ledger: ledger.events("ada")).result(30)
    assert (event.session_id, event.cost_nusd) == ("own", CENT)


def test_a_coroutine_that_is_closed_at_the_gate_makes_no_call(init):
    """A coroutine that is closed while it waits for room ends there: what it would have called is not."""
    pg = init(ledger="memory://", busy_timeout=30.0)
    pg.configure_plan("default", plan(2))
    call(pg)
    wallet, made = pg._meter.wallets["ada"], []

    async def answer():
        made.append(1)

    def inside():
        loop = asyncio.new_event_loop()
        task = loop.create_task(pg.awrap(answer(), user_id="ada", **EXACT))
        while not wallet.asks:
            loop.run_until_complete(asyncio.sleep(0.001))
        loop.close()
        task._log_destroy_pending = False
        task.get_coro().close()

    with pg._meter.call(Payer("ada"), "openai", "chat", "m", 0, 9) as holder:
        inside()
        holder.fail(None)
    assert made == []


def test_a_task_that_is_cancelled_at_the_gate_makes_no_call(init):
    """A task that is cancelled while it waits for room ends there, as cancelled."""
    pg = init(ledger="memory://", busy_timeout=30.0)
    pg.configure_plan("default", plan(2))
    call(pg)
    wallet, made = pg._meter.wallets["ada"], []

    async def answer():
        made.append(1)

    async def cancelled():
        task = asyncio.create_task(pg.awrap(answer(), user_id="ada", **EXACT))
        await asyncio.sleep(0)
        assert wallet.asks
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    with pg._meter.call(Payer("ada"), "openai", "chat", "m", 0, 9) as holder:
        assert asyncio.run(cancelled())
        holder.fail(None)
    assert made == []
    assert not wallet.asks


def test_what_was_granted_to_who_went_away_goes_to_the_next(init):
    """A hold that its caller cannot use any more lets in who waits, at once."""
    pg = init(ledger="memory://")
    meter = pg._meter
    meter.exporter.threaded = False
    pg.configure_plan("default", plan(1))
    gone, waiting = (meter.call(Payer("ada"), "openai", "chat", "m", 0, 9) for _ in range(2))
    meter.gate.begin(gone)
    ask = meter.gate._admit(waiting)
    assert not ask.future.done()
    meter.gate._abandon(gone, None)
    assert ask.future.result(0).name == "HELD"
    waiting.fail(None)


def test_after_shutdown_a_call_passes_unmetered(pg):
    """An engine that is shut down holds nothing and counts nothing any more."""
    pg.configure_plan("default", plan(10))
    call(pg)
    pg.shutdown()
    with bracket(pg) as late:
        assert late.state.name == "PASSES"
        late.finish(Usage(10))
    assert len(late.meter.ledger.events("ada")) == 1


def test_a_busy_caller_waits_as_long_as_he_may(pg, clock):
    """He goes on waiting until his time is over and he has looked once more, and is then refused as busy."""
    pg.configure_plan("default", plan(1))
    first, waiting = bracket(pg), bracket(pg)
    gate, timeout_s = pg._meter.gate, pg._meter.options.busy_timeout_s
    gate.begin(first)
    ask = gate._admit(waiting)
    pg._meter.exporter.run_step()
    clock.advance(timeout_s - 0.01)
    assert gate._impatient(ask) is ask
    assert ask.late_s is None
    clock.advance(0.01)
    assert gate._impatient(ask) is ask
    assert ask.late_s == clock.boot()
    with pytest.raises(PaygentLimitExceeded) as refused:
        gate._impatient(ask)
    assert refused.value.retryable
    first.fail(None)


def test_what_is_granted_past_the_limit_is_not_for_who_queues_behind(pg):
    """Where its caller has gone meanwhile, nobody else in the queue has what a grant went past the limit."""
    pg.configure_plan("default", plan(2, pre_call_estimate=False))
    meter = pg._meter
    call(pg)
    meter.exporter.flush(give_back=True)
    meter.exporter.run_step()
    large, small = bracket(pg, 50), bracket(pg)
    ask, _ = meter.gate._admit(large), meter.gate._admit(small)
    wallet = small.wallet
    meter.exporter._seq += 1
    request = wallet.prepare(meter.exporter._seq, meter.boot())
    assert request.need[TOTAL_SPEND] > 49 * CENT
    assert meter.gate._withdraw(ask)
    (reply,) = meter.ledger.lease([request])
    meter.desk.answered(wallet, request, reply)
    assert small.state.name == "HELD"
    assert wallet.period_purse.lease <= CENT + 1
    small.fail(None)


def test_alone_a_user_is_judged_by_what_was_remembered_of_him(init):
    """Without the ledger a user never seen here has the plan and the spending last known of him."""
    pg = init(ledger="memory://")
    pg._meter.exporter.threaded = False
    pg.configure_plan("default", plan(1))
    call(pg)
    pg._meter.exporter.flush()
    pg._meter.exporter.run_step()
    (known,) = pg._meter.ledger.lease([LeaseRequest("ada", "elsewhere", 1)])
    pg._meter.wallets.clear()
    pg._meter.options.remembered = {"ada": known}.get
    pg._meter.plans.clear()
    pg._meter.degraded = True
    call(pg, "bob")
    with pytest.raises(PaygentLimitExceeded) as refused:
        call(pg)
    assert refused.value.guard_result.gate_reason == TOTAL_SPEND
    assert refused.value.guard_result.current_value == pytest.approx(0.01)
