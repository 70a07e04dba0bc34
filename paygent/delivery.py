"""Getting events into the ledger, whatever is wrong with one of them; also those of dead processes."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import replace

from paygent._once import Once
from paygent.core.events import Event
from paygent.journal import EVENTS_PER_BATCH, Journal, batches
from paygent.ledger import LeaseRequest, Ledger, LedgerError
from paygent.recovery import Left, dead_journals

log = logging.getLogger("paygent")


class Delivery:
    """
    The ledger thread's way of posting events, at most 500 in one transaction.

    ``flushed`` counts the events delivered, ``rejected`` those that no ledger can take. Every method may
    raise :class:`LedgerError`; nothing is lost by that, since what was not settled is offered again.
    """

    def __init__(self, ledger: Ledger, journal: Journal, lease_id: str) -> None:
        self.flushed = 0
        self.rejected = 0
        self._ledger = ledger
        self._journal = journal
        self._lease_id = lease_id
        self._recovered = False
        self._rejected_ids: set[str] = set()
        self._faults = Once(100)  # each with a traceback

    def settled(self, events: Sequence[Event]) -> None:
        """Note that the ledger has *events*."""
        if events:
            self.flushed += len(events)
            self._journal.settled(events)

    def shortened(self, request: LeaseRequest) -> LeaseRequest:
        """A request with no more events than fit one transaction; the others are posted before."""
        surplus = len(request.events) - EVENTS_PER_BATCH
        if surplus <= 0:
            return request
        for batch in batches(request.events[:surplus]):
            self._ledger.settle(batch)
        return replace(request, events=request.events[surplus:])

    def post(self, events: Sequence[Event]) -> int:
        """
        Post *events*; one that no ledger can take is set aside, and holds up none of the others.

        Returns:
            How many of them the ledger did not have yet.
        """
        if not events:
            return 0
        try:
            return self._ledger.settle(events)
        except LedgerError:
            raise
        except Exception as error:  # noqa: BLE001  # found out whose it is, and logged
            if len(events) > 1:
                middle = len(events) // 2
                return self.post(events[:middle]) + self.post(events[middle:])
            self._reject(events[0], error)
            return 0

    def _reject(self, event: Event, error: Exception) -> None:
        if event.id not in self._rejected_ids:
            self._rejected_ids.add(event.id)
            self.rejected += 1
            self._journal.set_aside(event, f"{type(error).__name__}: {error}")

    def account_for_the_past(self, *, grants: bool) -> None:
        """No grant is taken before the dead processes and this one's own overflow are accounted for."""
        if not self._recovered:
            self.recover()
        if grants:
            self._journal.claim()
        if self._journal.shed_count:
            try:
                self._journal.settle_shed(self.post)
            except OSError as error:
                self.say_fault("reading the journal", error)

    def recover(self) -> None:
        """Take over the journals of dead processes."""
        try:
            with contextlib.closing(dead_journals(self._journal.folder, self._lease_id)) as journals:
                for left in journals:
                    self._take_over(left)
        except OSError as error:  # of the files; the ledger's are LedgerErrors
            self.say_fault("recovering journals", error)
        self._recovered = True

    def _take_over(self, left: Left) -> None:
        total = new = 0
        batch: list[Event] = []
        for following in batches(left.reader.events()):
            new += self.post(batch)
            batch = following
            total += len(batch)
        new += self._close(batch, left.lease_id)
        left.remove()
        log.info("recovered %d event(s), %d of them new, from %s", total, new, left.path)

    def _close(self, events: list[Event], lease_id: str) -> int:
        """Post the last events and close the lease in one step: nobody counts them twice in between."""
        try:
            return self._ledger.settle(events, close=[lease_id])
        except LedgerError:
            raise
        except Exception:  # noqa: BLE001  # one of them cannot be stored; found out which, and logged
            new = self.post(events)
            self._ledger.settle((), close=[lease_id])
            return new

    def say_fault(self, where: str, error: BaseException) -> None:
        """Log a fault of ours, the same one once: a thread that ticks each second would fill the log."""
        if self._faults.is_new(f"{where} {type(error).__name__} {error}"):
            log.error("paygent met a fault of its own %s, and goes on", where, exc_info=error)
