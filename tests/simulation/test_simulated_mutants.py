"""The simulator can fail: a rule that is broken on purpose is reported within a few thousand steps."""

import pytest
from sim_books import BrokenInvariantError
from sim_replay import STEPS, run

from paygent.core.balance import Granted
from paygent.delivery import Delivery
from paygent.journal import Journal
from paygent.ledgers import _rows
from paygent.ledgers.memory import _MemoryRows
from paygent.meter import call as call_module
from paygent.meter import settlement
from paygent.meter import wallet as wallet_module
from paygent.meter.call import Call
from paygent.meter.wallet import Wallet

STEPS_MAX = 12_000


def grants_one_too_many(monkeypatch):
    reserve = _rows.reserve

    def generous(*args, **options):
        outcome = reserve(*args, **options)
        if isinstance(outcome, Granted):
            return Granted({scope: amount + 1 for scope, amount in outcome.amounts.items()})
        return outcome

    monkeypatch.setattr(_rows, "reserve", generous)


def ignores_the_ledgers_clock(monkeypatch):
    live = _rows._live_leases
    monkeypatch.setattr(_rows, "_live_leases", lambda rows, request, now_us: live(rows, request, 0))


def drops_the_check_of_numbers(monkeypatch):
    live = _rows._live_leases

    def unnumbered(*args):
        mine, others, sharers = live(*args)
        return mine and mine._replace(seq=-1), others, sharers

    monkeypatch.setattr(_rows, "_live_leases", unnumbered)


def posts_events_twice(monkeypatch):
    insert = _MemoryRows.insert_events

    def again(self, events):
        insert(self, events)
        return events

    monkeypatch.setattr(_MemoryRows, "insert_events", again)


def keeps_what_expired(monkeypatch):
    monkeypatch.setattr(_rows, "_kept", lambda request, mine: dict(request.keep))


def spends_past_the_deadline(monkeypatch):
    monkeypatch.setattr(wallet_module, "GRANT_TTL_S", 3600.0)


def spends_beyond_the_lease(monkeypatch):
    monkeypatch.setattr(call_module, "covers", lambda held, need, lease: held <= lease)


def keeps_the_hold_of_a_failed_call(monkeypatch):
    monkeypatch.setattr(Call, "release", lambda self: None)


def bills_half(monkeypatch):
    def half(usage, rates):
        cost_nusd, is_estimate = priced(usage, rates)
        return cost_nusd // 2, is_estimate

    priced = settlement.priced
    monkeypatch.setattr(settlement, "priced", half)


def forgets_events_of_a_lost_request(monkeypatch):
    failed = Wallet.failed

    def forgetful(self):
        self.sent_events = None
        failed(self)

    monkeypatch.setattr(Wallet, "failed", forgetful)


def keeps_no_journal(monkeypatch):
    monkeypatch.setattr(Journal, "append", lambda self, event: None)


def removes_journals_unread(monkeypatch):
    monkeypatch.setattr(Delivery, "_take_over", lambda self, left: left.remove())


MUTANTS = [
    (grants_one_too_many, r"\(a\)"),
    (ignores_the_ledgers_clock, r"\((a|b)\)"),
    (drops_the_check_of_numbers, r"\(a\)"),
    (posts_events_twice, r"\((a|d|e)\)"),
    (keeps_what_expired, r"\((a|b)\)"),
    (spends_past_the_deadline, "past its deadline"),
    (spends_beyond_the_lease, "beyond its lease"),
    (keeps_the_hold_of_a_failed_call, "open calls hold"),
    (bills_half, "are posted as"),
    (forgets_events_of_a_lost_request, "not in the ledger"),
    (keeps_no_journal, "not in the ledger"),
    (removes_journals_unread, "not in the ledger"),
]


def run_many():
    for seed in range(STEPS_MAX // STEPS):
        run(seed)


@pytest.mark.parametrize("mutant, reason", MUTANTS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_rule_is_reported(monkeypatch, mutant, reason):
    """A rule that is broken on purpose is reported by its name, with the command that replays the seed."""
    mutant(monkeypatch)
    with pytest.raises(BrokenInvariantError, match=reason) as report:
        run_many()
    assert "replay it with: python tests/simulation/sim_replay.py " in str(report.value)
