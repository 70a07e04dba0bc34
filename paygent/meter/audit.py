"""Callbacks and the audit trail: who is told of a decision, and where it is written down."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from paygent.core.models import GuardResult
from paygent.ledger import GateRow, Ledger, LedgerError

log = logging.getLogger("paygent")

ROWS_PER_SECOND = 10
QUEUE_MAX = 10_000


class Callbacks:
    """The four slots; several callbacks each, called in order, one that raises is logged and passed over."""

    __slots__ = ("hard_gate", "session_start", "soft_gate", "usage")

    def __init__(self) -> None:
        self.soft_gate: list[Callable[[GuardResult], Any]] = []
        self.hard_gate: list[Callable[[GuardResult], Any]] = []
        self.usage: list[Callable[[Any], Any]] = []
        self.session_start: list[Callable[[Any], Any]] = []


def fire(callbacks: list[Callable[[Any], Any]], value: Any) -> None:
    """Call each with *value*; whatever a user's callback does wrong stays with it."""
    for callback in tuple(callbacks):
        try:
            callback(value)
        except Exception:
            log.exception("a callback of yours raised; the call goes on")


class _Tally:
    """The equal decisions of one second: how many there were, and the row that stands for the later ones."""

    __slots__ = ("more", "row", "second", "seen")

    def __init__(self, second: int) -> None:
        self.second = second
        self.seen = 0
        self.row: GateRow | None = None
        self.more = 0

    def take(self) -> GateRow | None:
        """The row of the later ones with their number, to be written; what comes next makes a new row."""
        row, more = self.row, self.more
        self.row, self.more = None, 0
        return None if row is None else row._replace(count=1 + more)


class AuditTrail:
    """
    A bounded queue of decisions, written by the ledger thread.

    More than ten a second for one user and reason become one row with a ``count``, so that a client that
    hammers a closed gate fills no disk.
    """

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self._lock = threading.Lock()
        self._rows: deque[GateRow] = deque(maxlen=QUEUE_MAX)
        self._tallies: dict[tuple[str, str | None, str, bool], _Tally] = {}
        self._unwritten: list[GateRow] = []

    def add(
        self,
        user_id: str,
        now_us: int,
        result: GuardResult,
        *,
        session_id: str | None,
        model: str | None,
        blocked: bool,
        metadata: dict[str, Any] | None,
    ) -> None:
        """Note one decision; ``blocked`` says whether the call was stopped."""
        key = (user_id, result.gate_reason, result.status, blocked)
        with self._lock:
            tally = self._tally(key, now_us // 1_000_000)
            tally.seen += 1
            if tally.row is not None:
                tally.more += 1
                return
            row = GateRow(
                self._new_id(), user_id, now_us, session_id, result.status, result.gate_reason,
                result.usage_pct, result.current_value, result.limit_value, model, int(blocked),
                result.message, metadata, 1,
            )  # fmt: skip
            if tally.seen > ROWS_PER_SECOND:
                tally.row = row
            else:
                self._rows.append(row)

    def _tally(self, key: tuple[str, str | None, str, bool], second: int) -> _Tally:
        tally = self._tallies.get(key)
        if tally is None or tally.second != second:
            if tally is not None or len(self._tallies) >= QUEUE_MAX:
                self._collect(second)
            tally = self._tallies[key] = _Tally(second)
        return tally

    def _collect(self, second: int) -> None:
        """Queue the rows that stand for several decisions, and forget the seconds that are over."""
        for key, tally in list(self._tallies.items()):
            row = tally.take()
            if row is not None:
                self._rows.append(row)
            if tally.second != second or len(self._tallies) >= QUEUE_MAX:
                del self._tallies[key]

    def write(self, ledger: Ledger, now_us: int) -> None:
        """Hand what waits to the ledger; what it does not take is kept for the next time."""
        with self._lock:
            self._collect(now_us // 1_000_000)
            rows = [*self._unwritten, *self._rows]
            self._rows.clear()
            self._unwritten = rows[-QUEUE_MAX:]
        if rows:
            try:
                ledger.record_gates(rows)
            except LedgerError:
                raise
            except Exception:
                log.exception("decisions could not be written to the audit trail; %d are left out", len(rows))
            self._unwritten = []

    @property
    def pending(self) -> int:
        """Decisions not yet written."""
        return len(self._rows) + len(self._unwritten)
