"""A clock that only moves when it is told to."""

from __future__ import annotations

from datetime import datetime, timezone

_START = datetime(2026, 3, 10, 12, tzinfo=timezone.utc)


class FakeClock:
    """
    The wall clock and the boot clock of one machine, advanced together.

    Give ``now_us`` to a ledger and ``boot`` to ``paygent.meter.meter.Options``.

    Args:
        start: What the wall clock says at first.
    """

    def __init__(self, start: datetime = _START) -> None:
        self._wall_us = int(start.timestamp() * 1_000_000)
        self._boot_us = 1_000_000_000

    def now_us(self) -> int:
        """Microseconds since the epoch, as the ledger's clock."""
        return self._wall_us

    def boot(self) -> float:
        """Seconds since the machine was started."""
        return self._boot_us / 1_000_000

    def advance(self, seconds: float) -> None:
        """Let time pass; a machine that sleeps is no different."""
        self._wall_us += round(seconds * 1_000_000)
        self._boot_us += round(seconds * 1_000_000)

    def set_wall(self, seconds: float) -> None:
        """Set the wall clock forward (or back, by a negative amount) without any time passing."""
        self._wall_us += round(seconds * 1_000_000)
