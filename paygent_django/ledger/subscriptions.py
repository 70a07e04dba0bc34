"""Reading and writing subscriptions, for the ledger and the services alike."""

from __future__ import annotations

from typing import NamedTuple

from paygent_django.ledger._sql import Sql
from paygent_django.ledger.timeline import Span, effective_start, place
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

    The caller holds the lock of the user's row.

    Args:
        starts_us: When it begins; ``None``: as its period says (see ``timeline.effective_start``).

    Returns:
        When it begins.
    """
    spans = spans_of(sql, user_pk)
    if starts_us is None:
        starts_us = effective_start(spans, terms.period and terms.period[0], now_us)
    placed = place(spans, starts_us, ends_us)
    table = sql.table(Subscription)
    if placed.replaces is not None:
        sql.run(f"DELETE FROM {table} WHERE id = %s", (placed.replaces.id,))  # noqa: S608  # names of our own
    if placed.cut is not None:
        sql.run(f"UPDATE {table} SET ends_us = %s WHERE id = %s", (starts_us, placed.cut.id))  # noqa: S608
    row = (
        user_pk, terms.plan_id, starts_us, placed.ends_us, *(terms.period or (None, None)), terms.reference,
        now_us, terms.created_by,
    )  # fmt: skip
    sql.insert(Subscription, COLUMNS, [row])
    return starts_us


def end(sql: Sql, user_pk: int, at_us: int) -> bool:
    """End the subscription that runs at *at_us* there; false if none does."""
    running = next((s for s in spans_of(sql, user_pk) if s.starts_us <= at_us < s.ends_us), None)
    if running is None:
        return False
    table = sql.table(Subscription)
    if running.starts_us == at_us:
        sql.run(f"DELETE FROM {table} WHERE id = %s", (running.id,))  # noqa: S608  # names of our own
    else:
        sql.run(f"UPDATE {table} SET ends_us = %s WHERE id = %s", (at_us, running.id))  # noqa: S608
    return True


def spans_of(sql: Sql, user_pk: int) -> list[Span]:
    """All subscriptions of a user in time, in order."""
    query = (
        f"SELECT id, starts_us, ends_us FROM {sql.table(Subscription)} WHERE user_id = %s ORDER BY starts_us"  # noqa: S608
    )
    return [Span(*row) for row in sql.rows(query, (user_pk,))]
