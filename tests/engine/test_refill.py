import pytest
from engine_values import ANSWER, CENT, call, plan

from paygent.core.plan import TOTAL_SPEND
from paygent.ledger import LeaseRequest
from paygent.ledgers.memory import MemoryLedger


@pytest.fixture
def operations(monkeypatch):
    """Every lease operation that the ledger hears of."""
    heard = []
    lease = MemoryLedger.lease

    def listening(self, requests):
        heard.extend(requests)
        return lease(self, requests)

    monkeypatch.setattr(MemoryLedger, "lease", listening)
    return heard


def by_hand(pg):
    """Drive the ledger thread's work by hand before it starts: its steps are where the test puts them."""
    pg._meter.exporter.threaded = False
    return pg._meter.exporter.run_step


def test_a_wallet_is_refilled_before_it_runs_dry(init, operations):
    """Far from its limit only the first call waits for the ledger; more comes in the background."""
    pg = init(ledger="memory://")
    step = by_hand(pg)
    pg.configure_plan("default", plan(10_000))
    for _ in range(1000):
        call(pg)
        step()
    assert len([request for request in operations if request.need]) == 1
    assert len([request for request in operations if request.want]) == pytest.approx(1000 / 48, abs=2)


def test_a_wish_goes_to_the_ledger_once(init, operations):
    """However many calls find the wallet low, the ledger is asked for more once."""
    pg = init(ledger="memory://")
    step = by_hand(pg)
    pg.configure_plan("default", plan(10_000))
    for _ in range(60):
        call(pg)
    step()
    assert len([request for request in operations if request.want]) == 1


def test_near_its_limit_nothing_is_refilled(init, operations):
    """Where a slice covers a few calls only, it is left to others until a call needs it."""
    pg = init(ledger="memory://")
    step = by_hand(pg)
    pg.configure_plan("default", plan(20))
    for _ in range(20):
        call(pg)
        step()
    assert [request for request in operations if request.want] == []


def test_a_refill_is_the_whole_of_what_is_idle():
    """What is wanted is granted up to the slice, whatever was idle before: asking twice hoards nothing."""
    ledger = MemoryLedger()
    ledger.put_plan("default", plan(1000).model_dump_json())
    need = {TOTAL_SPEND: CENT}
    (first,) = ledger.lease([LeaseRequest("ada", "a", 1, begin_session=True, need=need)])
    left = {bucket: amount - 60 * CENT for bucket, amount in first.lease.items()}
    (again,) = ledger.lease([LeaseRequest("ada", "a", 2, keep=left, want=need)])
    (last,) = ledger.lease([LeaseRequest("ada", "a", 3, keep=again.lease, want=need)])
    assert [sum(again.lease.values()), sum(last.lease.values())] == [64 * CENT] * 2


def test_own_sessions_are_refilled_too(init, operations):
    """A wish names the session of the call that made it, and its limit is refilled like any other."""
    pg = init(ledger="memory://")
    step = by_hand(pg)
    pg.configure_plan("default", plan(1e9, max_spend_per_session=100.0))
    for _ in range(200):
        pg.wrap(lambda: ANSWER, user_id="ada", session_id="mine", model="m", estimated_max_tokens=9)
        step()
    assert len([request for request in operations if request.need]) == 1
    assert {request.session_id for request in operations if request.want} == {"mine"}
