"""Reading and writing subscriptions, for the ledger and the services alike."""

from __future__ import annotations

from typing import NamedTuple

from paygent_django.ledger._sql import Sql
from paygent_django.ledger.timeline import Span, binding, effective_start, place, rest_of
from paygent_django.models import Subscription
from paygent_django.models.fields import MOMENT_MAX_US

COLUMNS = (
    "user_id", "plan_id", "starts_us", "ends_us", "period_start_us", "period_end_us", "reference",
    "created_us", "created_by",
)  # fmt: skip


class Terms(NamedTuple):
    """What a subscription binds to; ``plan_id=None``: the default plan, ``period=None``: calendar months."""

    plan_id: int | None
    period: tuple[int, int] | None = None
    reference: str = ""
    created_by: str = ""


def begin(
    sql: Sql,
    user_pk: int,
    terms: Terms,
    now_us: int,
    *,
    starts_us: int | None = None,
    ends_us: int = MOMENT_MAX_US,
) -> int:
    """
    Begin a subscription: the running one ends where it starts, scheduled ones stay.

    The caller holds the lock of the user's row. Where the clock was set
    back, it begins as what it replaces did.

    Args:
        starts_us: When it begins; ``None``: as its period says (see ``timeline.effective_start``).

    Returns:
        When it begins.
    """
    spans = spans_of(sql, user_pk)
    bound = binding(spans, now_us)
    now_us = now_us if bound is None else max(now_us, bound.starts_us)
    if starts_us is None:
        starts_us = effective_start(spans, terms.period and terms.period[0], now_us)
    elif bound is not None:
        starts_us = max(starts_us, bound.starts_us)
    spans = _without_rest(sql, spans, starts_us, terms)
    placed = place(spans, starts_us, ends_us)
    if placed.replaces is not None:
        _delete(sql, placed.replaces)
    if placed.cut is not None:
        _end(sql, placed.cut, starts_us)
    row = (
        user_pk, terms.plan_id, starts_us, placed.ends_us, *(terms.period or (None, None)), terms.reference,
        now_us, terms.created_by,
    )  # fmt: skip
    sql.insert(Subscription, COLUMNS, [row])
    return starts_us


def end(sql: Sql, user_pk: int, at_us: int) -> bool:
    """End the subscription that binds at *at_us* there, with the rest of it; false if none does."""
    spans = spans_of(sql, user_pk)
    bound = [span for span in spans if span.binds(at_us)]
    for span in bound:
        rest = rest_of(spans, span)
        if rest is not None and rest not in bound:
            _delete(sql, rest)
        _end(sql, span, at_us)
    return bool(bound)


def spans_of(sql: Sql, user_pk: int) -> list[Span]:
    """All subscriptions of a user in time, in order."""
    query = (
        "SELECT id, starts_us, ends_us, created_us, plan_id, reference, period_start_us, period_end_us "  # noqa: S608
        f"FROM {sql.table(Subscription)} WHERE user_id = %s ORDER BY starts_us"
    )
    return [_span(*row) for row in sql.rows(query, (user_pk,))]


def _span(
    pk: int, starts_us: int, ends_us: int, created_us: int, plan_id: int | None, reference: str,
    period_start_us: int | None, period_end_us: int | None,
) -> Span:  # fmt: skip
    period = None
    if period_start_us is not None and period_end_us is not None:
        period = period_start_us, period_end_us
    return Span(pk, starts_us, ends_us, created_us, plan_id, period, reference)


def _without_rest(sql: Sql, spans: list[Span], starts_us: int, terms: Terms) -> list[Span]:
    """
    Have *terms* take over the rest of the subscription that they end.

    In the same period the rest follows them. With another period there is none: theirs goes on.
    """
    running = next((span for span in spans if span.starts_us <= starts_us < span.ends_us), None)
    rest = None if running is None else rest_of(spans, running)
    if running is None or rest is None:
        return spans
    if terms.period != running.period:
        _delete(sql, rest)
        return [span for span in spans if span is not rest]
    sql.run(
        f"UPDATE {sql.table(Subscription)} SET plan_id = %s, reference = %s, created_by = %s WHERE id = %s",  # noqa: S608
        (terms.plan_id, terms.reference, terms.created_by, rest.id),
    )
    return spans


def _end(sql: Sql, span: Span, at_us: int) -> None:
    if span.starts_us >= at_us:
        _delete(sql, span)
    else:
        sql.run(f"UPDATE {sql.table(Subscription)} SET ends_us = %s WHERE id = %s", (at_us, span.id))  # noqa: S608


def _delete(sql: Sql, span: Span) -> None:
    sql.run(f"DELETE FROM {sql.table(Subscription)} WHERE id = %s", (span.id,))  # noqa: S608  # our own names
