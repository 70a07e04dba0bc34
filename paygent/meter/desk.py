"""The desk of the ledger thread: which wallets it should hear of, and what becomes of its answers."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from paygent.ledger import LeaseReply, LeaseRequest, Ledger, LedgerError
from paygent.meter.wallet import Wallet

if TYPE_CHECKING:
    from paygent.meter.meter import Meter

log = logging.getLogger("paygent")

CACHED_S = 600.0


class Desk:
    """The meter's side of ``paygent.exporter``."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._boot = meter.boot
        self._next_due_s = 0.0

    def due(self, boot_s: float) -> Iterable[Wallet]:
        """The wallets with something to say, or with a caller who wants to ask again."""
        if boot_s < self._next_due_s:
            return [w for w in tuple(self._meter.queue.polling) if w.is_due(boot_s)]
        self._next_due_s = boot_s + min(1.0, self._meter.options.flush_interval_s)
        self._meter.settle_dropped()
        self._forget(boot_s)
        self._refresh(boot_s)
        return [w for w in tuple(self._meter.wallets.values()) if w.is_due(boot_s)]

    def next_poll_s(self) -> float | None:
        """When the next queueing caller wants to ask again."""
        return min((w.poll_at_s for w in tuple(self._meter.queue.polling)), default=None)

    def everyone(self, *, give_back: bool) -> list[Wallet]:
        """All wallets, for a flush; with *give_back* no wallet keeps anything idle."""
        self._meter.settle_dropped()
        wallets = list(self._meter.wallets.values())
        if give_back:
            for wallet in wallets:
                wallet.touched_s = -1e9
        return wallets

    def answered(self, wallet: Wallet, request: LeaseRequest, reply: LeaseReply) -> bool:
        """Take a reply over and serve who waits; true: ask again at once."""
        assigned = reply.account.period
        if assigned is not None and reply.period.start_us != assigned[0]:
            self._meter.warn_once(
                f"rolled {wallet.user_id} {reply.period.key}",
                f"nobody renewed the billing period of {wallet.user_id!r}: it rolls on by its own length",
            )
        tariff = self._meter.tariff(reply.plan)
        for ask in tuple(wallet.asks or ()):
            if ask.call.tariff is not tariff:  # prices may have to be loaded: not under the user's lock
                tariff.terms(ask.call.model or "", ask.call.provider)
        wallet.receive(request, reply, tariff, self._boot())
        again = self._meter.queue.serve(wallet, reply.denied if request.need else None, busy=reply.busy)
        wallet.asking = None
        return again or (reply.contended and not wallet.asks and wallet.idle_lease)

    def reachable(self) -> None:
        """The ledger answered."""
        self._meter.exporter.heard = True
        if self._meter.degraded:
            self._meter.degraded = False
            log.warning("the ledger answers again; limits are shared with other processes again")

    def unreachable(self, error: LedgerError) -> None:
        """The ledger could not be asked: whoever waits is judged by what is known here."""
        self.trip(str(error))
        self._shed()
        for wallet in tuple(self._meter.wallets.values()):
            if wallet.asks:
                self._meter.queue.turn_away(wallet)

    def trip(self, reason: str) -> None:
        """Open the breaker: nobody waits for the ledger until it answers again."""
        self._meter.last_error = reason
        if not self._meter.degraded:
            self._meter.degraded = True
            log.warning(
                "the ledger is away (%s); calls go on, each process alone keeps to the limits", reason
            )

    def faulted(self, wallet: Wallet, error: Exception) -> None:
        """The ledger cannot handle this one wallet: who queues there is judged by what is known here."""
        self._meter.last_error = f"{type(error).__name__}: {error}"
        self._meter.queue.turn_away(wallet)

    def after_tick(self, ledger: Ledger, boot_s: float) -> None:  # noqa: ARG002  # the port
        """On the ledger thread: bring changes that did not come through, and write the audit trail."""
        if self._meter.degraded and not self._meter.pending_events:
            ledger.settle([])  # nothing else would find out that it is back
            self.reachable()
        self._meter.changes.bring(ledger)
        self._meter.audit.write(ledger, self._meter.now_us())

    def _shed(self) -> None:
        """Keep the events in memory within bounds; what leaves memory is still in the journal."""
        journal = self._meter.journal
        excess = self._meter.pending_events - journal.shed_count - self._meter.options.max_queue_size
        for wallet in tuple(self._meter.wallets.values()):
            if excess <= 0:
                return
            with wallet.lock:
                gone, wallet.events = wallet.events[:excess], wallet.events[excess:]
            excess -= len(gone)
            self._meter.dropped += journal.shed(gone)

    def _refresh(self, boot_s: float) -> None:
        """Ask anew about users whom nothing else asks about: their plans may have changed."""
        interval_s = self._meter.options.refresh_interval_s
        if interval_s is not None:
            for wallet in tuple(self._meter.wallets.values()):
                if boot_s - wallet.answered_s > interval_s:
                    wallet.stale = True

    def _forget(self, boot_s: float) -> None:
        for user_id, wallet in tuple(self._meter.wallets.items()):
            if boot_s - wallet.touched_s > CACHED_S:
                self._meter.drop(user_id, wallet)
