"""The clocks of the engine, as values that tests and simulations replace."""

from __future__ import annotations

import time
from collections.abc import Callable


def boot_clock() -> Callable[[], float]:
    """Seconds since some fixed moment, counting also while the machine slept where the system can tell."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    if boottime is None:
        return time.monotonic
    clock_gettime = time.clock_gettime
    return lambda: clock_gettime(boottime)
