"""What a sandbox does to time and to the ledger."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from paygent.clock import boot_clock
from paygent.ledger import Ledger, LedgerError

_ALWAYS = frozenset({"close", "forget_after_fork", "pulse"})


class TravelClock:
    """
    The real clock, from the tenth of this month on, plus what was travelled.

    Mid-month, so that a test that runs in the last second of a month meets no new period by itself.
    """

    def __init__(self) -> None:
        start = datetime.now(timezone.utc).replace(day=10, hour=12, minute=0, second=0, microsecond=0)
        self._real = boot_clock()
        self._travelled_s = 0.0
        self._offset_us = int(start.timestamp() * 1e6) - int(self._real() * 1e6)

    def boot(self) -> float:
        """Seconds since the machine was started."""
        return self._real() + self._travelled_s

    def now_us(self) -> int:
        """Microseconds since the epoch."""
        return int(self.boot() * 1e6) + self._offset_us

    def now(self) -> datetime:
        """The time in the sandbox, in UTC."""
        return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=self.now_us())

    def advance(self, by: timedelta) -> None:
        """
        Go forward.

        Raises:
            ValueError: *by* goes back, which no ledger could follow.
        """
        if by < timedelta(0):
            raise ValueError("travel() goes forward only")
        self._travelled_s += by.total_seconds()


class LedgerSwitch:
    """A ledger that can be made to fail or to stall; all the rest is that of the ledger behind it."""

    def __init__(self, ledger: Ledger, recovered: Callable[[], None]) -> None:
        self._ledger = ledger
        self._recovered = recovered
        self._fails = False
        self._runs = threading.Event()
        self._runs.set()

    @property
    def journal_dir(self) -> Path | None:
        """Where the ledger behind it keeps journals."""
        return self._ledger.journal_dir

    def fail(self) -> None:
        """From now on the ledger cannot be reached: every operation fails at once."""
        self._fails = True
        self._runs.set()

    def stall(self) -> None:
        """From now on the ledger does not answer: every operation waits for :meth:`recover`."""
        self._fails = False
        self._runs.clear()

    def recover(self) -> None:
        """The ledger answers again; returns when what was spent meanwhile is posted."""
        self.release()
        self._recovered()

    def release(self) -> None:
        """Answer again, without waiting for anything."""
        self._fails = False
        self._runs.set()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._ledger, name)
        if name in _ALWAYS or not callable(value):
            return value

        def operation(*args: Any, **kwargs: Any) -> Any:
            self._runs.wait()
            if self._fails:
                raise LedgerError("the sandbox's ledger was told to fail")
            return value(*args, **kwargs)

        return operation
