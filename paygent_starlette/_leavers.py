"""
What a client who left in mid-stream leaves behind: a plain generator that nobody closes.

Starlette runs it on worker threads and, when the client leaves, drops it within a cycle of frames and
exceptions (measured): the SDK's stream inside, and so its hold, would stay until the garbage collector
happens to come by. Where a call is still held shortly after, the collector is sent for, once a second at
most. Generators that are async are closed by their event loop, and need none of this.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time

from paygent.meter import active
from paygent.meter.meter import Meter
from paygent.web.request import RequestSlot

WAIT_S = 0.2  # for the worker thread to end its step, and for async generators to be closed
COLLECT_S = 1.0

_collected_s = -COLLECT_S


def look_after(slot: RequestSlot) -> None:
    """Have the calls of *slot* settled soon, which its client has left."""
    meter = active.get()
    if meter is not None and slot.tally.has_admitted:
        with contextlib.suppress(RuntimeError):  # another event loop than asyncio's
            asyncio.get_running_loop().call_later(WAIT_S, _look, meter, slot.user_id)


def _look(meter: Meter, user_id: str | None) -> None:
    global _collected_s  # noqa: PLW0603  # one collector per process
    now_s = time.monotonic()
    if user_id is None or not _holds(meter, user_id) or not gc.isenabled():
        return
    if now_s - _collected_s < COLLECT_S:
        asyncio.get_running_loop().call_later(_collected_s + COLLECT_S - now_s, _look, meter, user_id)
        return
    _collected_s = now_s
    asyncio.get_running_loop().run_in_executor(None, _collect, meter)


def _collect(meter: Meter) -> None:
    """Off the event loop: generators that end here may close their connections."""
    gc.collect()
    if meter.dropped_calls:
        meter.settle_dropped()


def _holds(meter: Meter, user_id: str) -> bool:
    wallet = meter.wallets.get(user_id)
    return wallet is not None and wallet.period_purse is not None and wallet.period_purse.held > 0
