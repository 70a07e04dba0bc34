"""How long anyone waits for the ledger, and how one that is away is told from one that is busy."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paygent.exporter import Asking, Exporter

PATIENCE_S = 0.25  # the longest anyone waits for a ledger that does not answer
LOOK_S = 0.05
AWAY = f"the ledger did not answer within {PATIENCE_S:g} s"
BUSY_S_MAX = 2.0  # the longest that anyone waits for one that is only busy; a call up to busy_timeout, too
# The first look at a request that takes long comes two looks before patience ends: it must be seen twice.
FIRST_LOOK_S = PATIENCE_S - 2 * LOOK_S
STOPPED_S = 4 * LOOK_S  # a longer pause between two looks says nothing of the ledger


class Patience:
    """
    Judges the request that the ledger thread is at.

    The ledger is away when nobody, here or in another process, has had a turn at the store for so long
    (:meth:`~paygent.ledger.Ledger.pulse`). That must be seen at two looks: a process that was itself stopped,
    or got no time of its machine, finds a long time gone by and has seen nothing.
    """

    def __init__(self, exporter: Exporter, boot: Callable[[], float]) -> None:
        self._exporter = exporter
        self._boot = boot
        # What stood still at the last look, since when, when that was first seen, and when last.
        self._seen: tuple[tuple[Asking, int], float, float, float] | None = None

    def is_over(self) -> bool:
        """Look: whether the ledger is away."""
        now_s = self._boot()
        asking = self._exporter.asking
        if asking is None:
            self._seen = None
            return False
        pulse = self._exporter.pulse()
        seen = self._seen
        if seen is None or seen[0] != (asking, pulse):
            since_s = asking.since_s if pulse == asking.pulse else now_s
            self._seen = (asking, pulse), since_s, now_s, now_s
            return False
        _, since_s, first_s, last_s = seen
        if now_s - last_s > STOPPED_S:  # nobody has looked meanwhile: that counts as one look
            first_s = now_s
        self._seen = (asking, pulse), since_s, first_s, now_s
        return now_s - since_s >= PATIENCE_S - LOOK_S and now_s - first_s >= LOOK_S / 2

    def next_look_s(self, waited_s: float) -> float:
        """How long to wait for an answer until the next look: long at first, then often."""
        return max(FIRST_LOOK_S - waited_s, LOOK_S)

    def wait(self, future: Future[Any], timeout_s: float = BUSY_S_MAX, *, to_the_end: bool = False) -> bool:
        """
        Wait for *future*; false: the ledger is away, or *timeout_s* have passed.

        With *to_the_end* the time is waited out, since the ledger may come back.
        """
        began_s = self._boot()
        while True:
            waited_s = self._boot() - began_s
            left_s = max(0.0, timeout_s - waited_s)
            if wait((future,), timeout=min(self.next_look_s(waited_s), left_s)).done:
                return True
            if (self.is_over() and not to_the_end) or not left_s:
                return future.done()
