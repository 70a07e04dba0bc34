"""Changes to what the ledger knows of plans, users and jobs: made in order, and kept while it is away."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from paygent.ledger import Ledger, LedgerError

if TYPE_CHECKING:
    from paygent.meter.meter import Meter

Step: TypeAlias = Callable[[Ledger], None]


class _Change:
    """One change; ``error`` is the fault of whoever waits for it, in the end."""

    __slots__ = ("error", "is_awaited", "is_made", "step")

    def __init__(self, step: Step, *, is_awaited: bool) -> None:
        self.step = step
        self.is_awaited = is_awaited
        self.is_made = False
        self.error: Exception | None = None


class Changes:
    """
    The changes that this process has not brought to the ledger yet, oldest first.

    A user must not arrive at a plan before the plan does, nor an older form of a plan after a newer one:
    each change waits for those before it, also for one that was under way when the ledger went away.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._waiting: deque[_Change] = deque()
        self._is_bringing = False

    def put(self, step: Step) -> bool:
        """
        Change the ledger and wait for it; false where it is away: the change then follows when it returns.

        Raises:
            Exception: What *step* raised, if it is no :class:`~paygent.ledger.LedgerError`.
        """
        change = self._add(step, is_awaited=True)
        meter = self._meter
        if self._is_bringing and meter.exporter.is_current:
            return True  # made within another one, on the ledger thread: it is next
        if not meter.degraded:
            brought = meter.exporter.call(self.bring)
            if not meter.patience.wait(brought):
                meter.desk.trip("a change did not reach the ledger")
        change.is_awaited = False
        if change.error is not None:
            raise change.error
        return change.is_made

    def deliver(self, step: Step) -> None:
        """Have the ledger changed on its thread, without waiting; a fault in it is logged there."""
        self._add(step, is_awaited=False)
        self._meter.exporter.call(self.bring)

    def bring(self, ledger: Ledger) -> None:
        """
        Make what waits, on the ledger thread.

        Raises:
            LedgerError: It is away; what is not made yet keeps waiting.
        """
        if self._is_bringing:
            return
        self._is_bringing = True
        try:
            while self._waiting:
                self._make(self._waiting[0], ledger)
                self._waiting.popleft()
        finally:
            self._is_bringing = False

    def _make(self, change: _Change, ledger: Ledger) -> None:
        try:
            change.step(ledger)
            change.is_made = True
        except LedgerError:
            raise
        except Exception as error:  # noqa: BLE001  # one that can never work must not hold up the others
            if change.is_awaited:
                change.error = error
            else:
                self._meter.own_fault("bringing a change to the ledger")

    def _add(self, step: Step, *, is_awaited: bool) -> _Change:
        change = _Change(step, is_awaited=is_awaited)
        self._waiting.append(change)
        return change
