"""Event ids: UUIDs of version 7 in layout, from a random prefix per process and a counter."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from itertools import chain, count, islice

_NAMESPACE = uuid.UUID("6d1b3c5e-9f0a-4d2b-8c7e-2f4a6b8c0d1e")
_PER_PREFIX = (1 << 32) - 1


def event_ids() -> Callable[[], str]:
    """
    Return a maker of ids that sort by process start and order of making; a fork needs a new one.

    Layout (RFC 9562, version 7): 48 bits of milliseconds, 12 + 30 random bits, 32 bits of counter; a new
    prefix after four billion ids. No Python runs in it, as it is on the path of every call.
    """
    return chain.from_iterable(iter(_block, None)).__next__


def _block() -> Iterator[str]:
    stamp = f"{time.time_ns() // 1_000_000:012x}"
    noise = os.urandom(6).hex()
    prefix = f"{stamp[:8]}-{stamp[8:]}-7{noise[:3]}-8{noise[3:6]}-{noise[6:10]}"
    return map(f"{prefix}%08x".__mod__, islice(count(1), _PER_PREFIX))


def id_for_key(user_id: str, key: str) -> str:
    """The id that an idempotency key of a user always gets."""
    return str(uuid.uuid5(_NAMESPACE, f"{len(user_id)}:{user_id}:{key}"))
