"""The clocks of the engine, as values that tests and simulations replace."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial


def boot_clock() -> Callable[[], float]:
    """Seconds since some fixed moment, counting also while the machine slept."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    if boottime is None and sys.platform == "darwin":
        boottime = time.CLOCK_MONOTONIC  # there it goes on during sleep, unlike time.monotonic()
    if boottime is None:
        return whichever_is_ahead(time.monotonic, time.time)
    return partial(time.clock_gettime, boottime)


def whichever_is_ahead(monotonic: Callable[[], float], wall: Callable[[], float]) -> Callable[[], float]:
    """
    A clock that never goes back, and advances by whichever of the two has advanced further.

    For systems that cannot tell how long they slept: a deadline passes as soon as either clock says so.
    """
    behind = monotonic() - wall()
    ahead = 0.0

    def read() -> float:
        nonlocal ahead
        now = monotonic()
        ahead = max(ahead, wall() + behind - now)
        return now + ahead

    return read
