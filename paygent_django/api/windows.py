"""In which billing period and session an event counts whose client knows neither."""

from __future__ import annotations

from collections.abc import Sequence

from paygent.core.events import Event
from paygent.core.windows import billing_period
from paygent_django.models import Project, Subscription
from paygent_django.models.fields import MOMENT_MAX_US
from paygent_django.services._base import rows

NO_SESSION = "s0:api"
Span = tuple[int, int, tuple[int, int] | None]  # starts, ends, assigned period
_USERS_PER_QUERY = 400


def placed(project: Project, events: Sequence[Event]) -> list[Event]:
    """*events*, each with the windows that it falls in; one that its client knows stays."""
    if all(event.period and event.session for event in events):
        return list(events)
    spans = _spans(project, sorted({event.user_id for event in events if not event.period}))
    return [_placed(event, spans.get(event.user_id, ())) for event in events]


def _placed(event: Event, spans: Sequence[Span]) -> Event:
    period = event.period or billing_period(_assigned(spans, event.timestamp_us), event.timestamp_us).key
    return event._replace(period=period, session=event.session or NO_SESSION)


def _assigned(spans: Sequence[Span], moment_us: int) -> tuple[int, int] | None:
    """
    The billing period that was assigned at that moment.

    Before the first subscription it is that one's, rolled back: a client may have metered before it was told.
    """
    for starts_us, ends_us, period in spans:
        if moment_us < ends_us and (moment_us >= starts_us or starts_us == spans[0][0]):
            return period
    return None


def _spans(project: Project, users: Sequence[str]) -> dict[str, list[Span]]:
    spans: dict[str, list[Span]] = {}
    for start in range(0, len(users), _USERS_PER_QUERY):
        found = rows(Subscription).filter(
            user__project=project,
            user__external_user_id__in=users[start : start + _USERS_PER_QUERY],
            ends_us__lte=MOMENT_MAX_US,
        )
        names = ("user__external_user_id", "starts_us", "ends_us", "period_start_us", "period_end_us")
        for user_id, starts_us, ends_us, period_start, period_end in found.order_by("starts_us").values_list(
            *names
        ):
            period = None if period_start is None else (period_start, period_end)
            spans.setdefault(user_id, []).append((starts_us, ends_us, period))
    return spans
