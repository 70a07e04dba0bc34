"""Callbacks and the audit trail: who is told of a decision, and where it is written down."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from paygent.core.models import GuardResult
from paygent.ledger import GateRow, Ledger

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
        self._recent: dict[tuple[str, str | None, str, int], tuple[int, GateRow | None]] = {}
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
            second, kept = self._recent.get(key, (0, None))
            if second // 100 == now_us // 1_000_000 and second % 100 >= ROWS_PER_SECOND and kept is not None:
                self._recent[key] = (second, kept._replace(count=kept.count + 1))
                return
            if second // 100 != now_us // 1_000_000:
                if kept is not None and kept.count > 0:
                    self._rows.append(kept)
                second, kept = now_us // 1_000_000 * 100, None
            row = GateRow(
                self._new_id(), user_id, now_us, session_id, result.status, result.gate_reason, result.usage_pct,
                result.current_value, result.limit_value, model, int(blocked), result.message, metadata, 1,
            )  # fmt: skip
            if second % 100 == ROWS_PER_SECOND - 1:
                self._recent[key] = (second + 1, row._replace(id=self._new_id(), count=0))
            else:
                self._recent[key] = (second + 1, None)
            self._rows.append(row)

    def write(self, ledger: Ledger, now_us: int, *, everything: bool = False) -> None:
        """Hand what waits to the ledger; what it does not take is kept for the next time."""
        with self._lock:
            second = now_us // 1_000_000
            for key, (stamp, kept) in list(self._recent.items()):
                if stamp // 100 < second or everything:
                    if kept is not None and kept.count > 0:
                        self._rows.append(kept)
                    del self._recent[key]
            rows = self._unwritten + list(self._rows)
            self._rows.clear()
            self._unwritten = rows[-QUEUE_MAX:]
        if rows:
            ledger.record_gates(rows)
            self._unwritten = []

    @property
    def pending(self) -> int:
        """Decisions not yet written."""
        return len(self._rows) + len(self._unwritten)
