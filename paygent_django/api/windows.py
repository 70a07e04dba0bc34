"""In which billing period and session an event counts whose client knows neither."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import connections

from paygent.core.events import Event
from paygent.core.windows import billing_period
from paygent_django.database import database_alias
from paygent_django.ledger._sql import Sql, chunks
from paygent_django.models import EndUser, Project, Subscription
from paygent_django.models.fields import escape, unescape

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
    """As the ledger reads, which takes a fraction of the time: this is on the path of every batch."""
    spans: dict[str, list[Span]] = {}
    sql = Sql(connections[database_alias()])
    try:
        for chunk in chunks([escape(user_id) for user_id in users], _USERS_PER_QUERY):
            named, values = sql.of_project(EndUser, "external_user_id", project.pk, chunk, "u")
            query = (
                "SELECT u.external_user_id, s.starts_us, s.ends_us, s.period_start_us, s.period_end_us "  # noqa: S608
                f"FROM {sql.table(EndUser)} u JOIN {sql.table(Subscription)} s ON s.user_id = u.id "
                f"WHERE {named} ORDER BY s.starts_us"
            )
            for name, starts_us, ends_us, period_start_us, period_end_us in sql.rows(query, values):
                period = None if period_start_us is None else (period_start_us, period_end_us)
                spans.setdefault(unescape(name), []).append((starts_us, ends_us, period))
    finally:
        sql.close()
    return spans
