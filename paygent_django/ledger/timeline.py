"""A user's subscriptions as a line of spans that never overlap: where a new one goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from paygent_django.models.fields import MOMENT_MAX_US


class Span(NamedTuple):
    """One subscription in time; ``id`` names its row. ``ends_us`` is exclusive."""

    id: int
    starts_us: int
    ends_us: int


class Placement(NamedTuple):
    """
    How a new span fits in: the row to *cut* at its start, the row that it *replaces* (one that begins at the
    same moment), and where it ends: at the next one that is scheduled, or never.
    """

    cut: Span | None
    replaces: Span | None
    ends_us: int


def place(spans: Sequence[Span], starts_us: int, ends_us: int = MOMENT_MAX_US) -> Placement:
    """Find the place of a span that begins at *starts_us*, and ends at *ends_us* at the latest."""
    running = next((span for span in spans if span.starts_us <= starts_us < span.ends_us), None)
    later = (span.starts_us for span in spans if span.starts_us > starts_us)
    ends_us = min(ends_us, min(later, default=MOMENT_MAX_US))
    if running is not None and running.starts_us == starts_us:
        return Placement(None, running, ends_us)
    return Placement(running, None, ends_us)


def effective_start(spans: Sequence[Span], period_start_us: int | None, now_us: int) -> int:
    """
    When a subscription for a period begins to bind.

    A period in the future: at its start. One that has begun: from its start where nothing else was bound
    since, else now, since nobody's past is rewritten.
    """
    if period_start_us is None:
        return now_us
    if period_start_us > now_us:
        return period_start_us
    taken = any(span.starts_us < now_us and span.ends_us > period_start_us for span in spans)
    return now_us if taken else period_start_us
