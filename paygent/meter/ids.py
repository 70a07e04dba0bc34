"""Event ids: UUIDs of version 7 in layout, from a random prefix per process and a counter."""

from __future__ import annotations

import itertools
import os
import time
import uuid

_NAMESPACE = uuid.UUID("6d1b3c5e-9f0a-4d2b-8c7e-2f4a6b8c0d1e")


class EventIds:
    """
    Makes ids that sort by process start and order of making; a fork needs a new one.

    Layout (RFC 9562, version 7): 48 bits of milliseconds, 12 + 30 random bits, 32 bits of counter.
    """

    __slots__ = ("_count", "_prefix")

    def __init__(self) -> None:
        stamp = f"{time.time_ns() // 1_000_000:012x}"
        noise = os.urandom(6).hex()
        self._prefix = f"{stamp[:8]}-{stamp[8:]}-7{noise[:3]}-8{noise[3:6]}-{noise[6:10]}"
        self._count = itertools.count(1)

    def __call__(self) -> str:
        """Make the next id."""
        number = next(self._count)
        if number >= 1 << 32:
            self.__init__()  # type: ignore[misc]  # a new prefix, after four billion ids
            number = next(self._count)
        return f"{self._prefix}{number:08x}"


def id_for_key(user_id: str, key: str) -> str:
    """The id that an idempotency key of a user always gets."""
    return str(uuid.uuid5(_NAMESPACE, f"{len(user_id)}:{user_id}:{key}"))
