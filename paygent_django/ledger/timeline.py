"""A user's subscriptions as a line of spans that never overlap: where a new one goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from paygent_django.models.fields import MOMENT_MAX_US


class Span(NamedTuple):
    """
    One subscription in time; ``id`` names its row. ``ends_us`` is exclusive.

    One that began when it was made has begun for good: a clock that is set back does not undo it.
    """

    id: int
    starts_us: int
    ends_us: int
    created_us: int
    plan_id: int | None = None
    period: tuple[int, int] | None = None
    reference: str = ""

    def binds(self, now_us: int) -> bool:
        """Whether it has begun and not ended; of several that do, the latest counts."""
        return self.starts_us <= max(now_us, self.created_us) and self.ends_us > now_us


class Placement(NamedTuple):
    """
    How a new span fits in: the row to *cut* at its start, the row that it *replaces* (one that begins at the
    same moment), and where it ends: at the next one that is scheduled, or never.
    """

    cut: Span | None
    replaces: Span | None
    ends_us: int


def binding(spans: Sequence[Span], now_us: int) -> Span | None:
    """What binds now, of spans in their order."""
    return next((span for span in reversed(spans) if span.binds(now_us)), None)


def unbound(spans: Sequence[Span], now_us: int) -> Span:
    """The time in which nothing binds but the project's default plan, from now to the next subscription."""
    later = (span.starts_us for span in spans if span.starts_us > now_us)
    return Span(0, now_us, min(later, default=MOMENT_MAX_US), now_us)


def rest_of(spans: Sequence[Span], span: Span) -> Span | None:
    """
    The second part of a subscription that was cut where its period ends, so that this one could be reset.

    It goes on in the period from before. What somebody has scheduled begins with a period of its own.
    """
    follows = (other for other in spans if other.starts_us == span.ends_us)
    after = next(follows, None)
    if after is None or (after.plan_id, after.reference) != (span.plan_id, span.reference):
        return None
    return after if after.period is None or after.period[0] != after.starts_us else None


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
