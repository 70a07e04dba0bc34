"""The guarded boundary of instrumentation: a fault of ours is logged once per place, never raised."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from paygent._once import Once
from paygent.core.errors import VISIBLE

log = logging.getLogger("paygent.instrumentation")
_reported = Once()


def report(place: str, error: BaseException) -> None:
    """Log a fault of ours, in full the first time it happens at *place*."""
    first = _reported.is_new(place)
    level = logging.WARNING if first else logging.DEBUG
    log.log(
        level, "Paygent could not %s; the call goes on: %r", place, error, exc_info=error if first else None
    )


@contextmanager
def guarded(place: str) -> Iterator[None]:
    """Run a step of ours: what it raises is reported, and the caller's work goes on."""
    try:
        yield
    except VISIBLE:
        raise
    except Exception as error:  # noqa: BLE001  # the boundary between our faults and the caller
        report(place, error)
