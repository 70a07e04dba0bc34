"""The process's active meter: what instrumentation and plugins ask before each call."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paygent.meter.meter import Meter

_meter: Meter | None = None


def get() -> Meter | None:
    """Return the active meter, or ``None`` before ``init()``."""
    return _meter


def activate(meter: Meter | None) -> None:
    """Make *meter* the one that every instrumented call asks."""
    global _meter  # noqa: PLW0603  # one per process, by design
    _meter = meter
