"""The way from a simulated process to the ledger, on which things get slow, lost and late."""

import random
from dataclasses import dataclass

import greenlet

from paygent.ledger import LedgerError


@dataclass
class Weather:
    """How likely each mishap of one operation is; calm by default."""

    slow: float = 0.0
    lost_before: float = 0.0
    lost_after: float = 0.0
    late: float = 0.0
    twice: float = 0.0


class Wire:
    """The ledger as one process sees it."""

    def __init__(self, fleet, worker):
        self._fleet = fleet
        self._worker = worker
        self.down_until_us = 0
        self.busy = {}  # the busy refusals of the last operation, by user

    @property
    def journal_dir(self):
        return self._fleet.journals

    def pulse(self):
        return 0

    def lease(self, requests):
        fleet, sent_s = self._fleet, self._worker.boot()
        letter = fleet.books.letter(self._worker, requests)
        fate = self._fate()
        self._pause()
        if fate == "late":
            fleet.mail.append(letter)
        if fate in ("late", "lost_before"):
            raise LedgerError(fate)
        replies = fleet.books.lease(letter, fleet.ledger_us())
        if fate == "twice":
            fleet.mail.append(letter)
        self._pause()
        if fate == "lost_after":
            raise LedgerError(fate)
        fleet.books.renewed(letter, sent_s)
        self.busy = {reply.account.user_id: reply for reply in replies if reply.denied and reply.busy}
        return replies

    def settle(self, events, close=()):
        fate = self._fate()
        if not any(wallet.in_flight for wallet in self._worker.meter.wallets.values()):
            self._pause()
        if fate in ("late", "lost_before"):
            raise LedgerError(fate)
        count = self._fleet.books.settle(events, close, self._fleet.ledger_us())
        if fate == "lost_after":
            raise LedgerError(fate)
        return count

    def put_plan(self, name, config):
        self._change(lambda: self._fleet.books.put_plan(name, config))

    def put_account(self, user_id, changes):
        self._change(lambda: self._fleet.books.put_account(user_id, changes))

    def record_gates(self, rows):
        self._change(lambda: None)

    def plans(self):
        self._change(lambda: None)
        return self._fleet.ledger.plans()

    def totals(self, user_id):
        return self._fleet.ledger.totals(user_id)

    def close(self):
        """The fleet closes its ledger."""

    def _change(self, change):
        fate = self._fate()
        if fate in ("late", "lost_before"):
            raise LedgerError(fate)
        change()
        if fate == "lost_after":
            raise LedgerError(fate)

    def _fate(self):
        fleet = self._fleet
        if fleet.now_us < max(self.down_until_us, fleet.down_until_us):
            return "lost_before"
        weather = fleet.weather
        roll = fleet.rng.random()
        for name in ("lost_before", "lost_after", "late", "twice"):
            roll -= getattr(weather, name)
            if roll < 0:
                fleet.books.seen[name] += 1
                return name
        return None

    def _pause(self):
        """The answer takes time, in which everybody else goes on."""
        if greenlet.getcurrent() is self._worker.job and self._fleet.rng.random() < self._fleet.weather.slow:
            self._fleet.books.seen["slow"] += 1
            self._fleet.wait()


def weather_of(rng: random.Random) -> Weather:
    """Calm for a third of the seeds, else some of everything."""
    if rng.random() < 0.33:
        return Weather(slow=rng.choice([0.0, 0.3]))
    pick = [0.0, 0.01, 0.05]
    return Weather(
        rng.choice([0.0, 0.2, 0.5]), rng.choice(pick), rng.choice(pick), rng.choice(pick), rng.choice(pick)
    )
