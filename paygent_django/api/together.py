"""Batches that wait at the same moment become one transaction."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from paygent._forking import ProcessLock
from paygent.core.events import Event
from paygent_django.ledger import Posted

EVENTS_MAX = 1000  # of a transaction of several batches: the rows of their users are locked for so long


class Ledger(Protocol):
    """What batches are posted to."""

    def post_batches(self, batches: Sequence[Sequence[Event]]) -> list[Posted]:
        """Post all of *batches* or, where it raises, none."""


class _Batch:
    """One caller's batch; ``turn`` is set when it is posted, or when its caller is to post what waits."""

    __slots__ = ("error", "events", "posted", "turn")

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = events
        self.turn = threading.Event()
        self.posted: Posted | None = None
        self.error: BaseException | None = None

    @property
    def is_done(self) -> bool:
        return self.posted is not None or self.error is not None


class Together:
    """
    Where the threads of a server meet that post to one project.

    A transaction has its price, and its commit waits for the disk. So one caller at a time posts his batch,
    and with it those that have come meanwhile; the next in line does so for whoever comes after. Nobody waits
    for company, and nobody is told before his own events are in the books.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[_Batch] = deque()
        self._is_busy = False

    def post(self, ledger: Ledger, events: Sequence[Event]) -> Posted:
        """
        Post one batch, and say what became of it.

        Raises:
            Exception: What the ledger has raised for this very batch.
        """
        mine = _Batch(events)
        with self._lock:
            self._waiting.append(mine)
            leads, self._is_busy = not self._is_busy, True
        if not leads:
            mine.turn.wait()
        if not mine.is_done:
            self._lead(ledger)
        if mine.error is not None:
            raise mine.error
        assert mine.posted is not None
        return mine.posted

    def _lead(self, ledger: Ledger) -> None:
        """Post what is at the head of the line, and hand on to whoever is behind."""
        group = self._taken()
        try:
            _post(ledger, group)
        finally:
            with self._lock:
                following = self._waiting[0] if self._waiting else None
                self._is_busy = following is not None
            for batch in group:
                if not batch.is_done:  # this thread was told to end: nobody may wait for it for ever
                    batch.error = RuntimeError("the server is ending")
                batch.turn.set()
            if following is not None:
                following.turn.set()

    def _taken(self) -> list[_Batch]:
        with self._lock:
            group = [self._waiting.popleft()]
            count = len(group[0].events)
            while self._waiting and count + len(self._waiting[0].events) <= EVENTS_MAX:
                group.append(self._waiting.popleft())
                count += len(group[-1].events)
        return group


def _post(ledger: Ledger, group: Sequence[_Batch]) -> None:
    """Post all at once; if that fails one by one, so that each is told of its own."""
    if len(group) > 1:
        try:
            told = ledger.post_batches([batch.events for batch in group])
        except Exception:  # noqa: BLE001  # it is raised again to whom it concerns
            told = []
        for batch, posted in zip(group, told, strict=False):
            batch.posted = posted
    for batch in group:
        if not batch.is_done:
            _post_alone(ledger, batch)


def _post_alone(ledger: Ledger, batch: _Batch) -> None:
    try:
        (batch.posted,) = ledger.post_batches([batch.events])
    except Exception as error:  # noqa: BLE001  # it is raised again to whom it concerns
        batch.error = error


_lock = ProcessLock()
_meetings: dict[tuple[str, int], Together] = {}


def together(alias: str, project_pk: int) -> Together:
    """Where those meet in this process who post to that project."""
    with _lock:
        return _meetings.setdefault((alias, project_pk), Together())


# Whoever was posting is not in a forked child: those who wait for him there would wait for ever.
os.register_at_fork(after_in_child=_meetings.clear)
