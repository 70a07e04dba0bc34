"""Plans, users and jobs: changes reach the ledger in the order in which they were made."""

import pytest
from engine_values import call, plan

from paygent import PaygentLimitExceeded
from paygent.ledger import LedgerError


def settle(pg):
    pg._meter.exporter.flush().result(30)


def calls_until_refused(pg):
    for made in range(100):
        try:
            call(pg)
        except PaygentLimitExceeded:
            return made
    return "no limit"


def test_a_change_under_way_when_the_ledger_goes_away_stays_the_first(paygent_sandbox):
    """It fails only after others were made: an old form of a plan must not come after the new one."""
    pg, ledger = paygent_sandbox.pg, paygent_sandbox.ledger
    pg.configure_plan("default", plan(90))
    ledger.stall()
    pg.configure_plan("pro", plan(10))
    pg.assign_plan("ada", "pro")
    pg.configure_plan("pro", plan(3))
    ledger.fail()
    with pytest.raises(LedgerError):
        settle(pg)
    ledger.release()
    settle(pg)
    pg.refresh_user("ada")
    assert calls_until_refused(pg) == 3


def test_whoever_waits_for_a_change_learns_of_its_fault(init):
    """What the ledger cannot do is the caller's to know, and holds up nothing that comes after it."""
    pg = init(ledger="memory://")
    with pytest.raises(ZeroDivisionError):
        pg._meter.changes.put(lambda _: 1 // 0)
    assert pg._meter.changes.put(lambda ledger: ledger.put_plan("later", "{}")) is True


def test_a_fault_that_nobody_waits_for_is_logged(init, caplog):
    """The changes after it are made all the same."""
    pg = init(ledger="memory://")
    made = []
    pg._meter.changes.deliver(lambda _: 1 // 0)
    pg._meter.changes.deliver(made.append)
    settle(pg)
    assert len(made) == 1
    assert "bringing a change to the ledger" in caplog.text


def test_a_change_made_within_another_one_follows_it(init):
    """On the ledger thread nobody waits for himself: the second is made once the first is."""
    pg = init(ledger="memory://")
    order = []

    def first(_):
        assert pg._meter.changes.put(lambda _: order.append("second")) is True
        order.append("first")

    assert pg._meter.changes.put(first) is True
    assert order == ["first", "second"]
