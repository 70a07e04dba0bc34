"""The machine's clock, for what is not the ledger's business."""

from __future__ import annotations

import time


def now_us() -> int:
    """Microseconds since the epoch: instants are integers in UTC, whatever ``USE_TZ`` says."""
    return time.time_ns() // 1000
