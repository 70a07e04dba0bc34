"""Roll-ups, built anew from the events."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from typing import Any

from paygent.core.windows import to_us
from paygent_django.ledger._accounts import Accounts
from paygent_django.ledger._events import Counted, roll_up, roll_up_gates
from paygent_django.ledger._sql import Sql
from paygent_django.models import DailyGate, DailyUsage, GateEvent, Project, UsageEvent, UserUsage
from paygent_django.services._base import ServiceError, rows, writing

_EVENTS_PER_STEP = 5000
# The columns of what is counted.
_COUNTED = (
    "user_id", "plan_id", "timestamp_us", "model", "tag", "input_tokens", "output_tokens", "cost_nusd",
    "estimated", "source",
)  # fmt: skip


def rebuild(project: Project, since: date, until: date, *, dry_run: bool = False) -> Iterator[date]:
    """
    Build the roll-ups of whole months anew, from the month of *since* to that of *until*; yields each month.

    Shards are joined. Each month is one transaction, during which the ledgers of other processes wait. A dry
    run names the months.

    Raises:
        ServiceError: Events of these months were pruned: the roll-ups are all that is left of them.
    """
    month = since.replace(day=1)
    if moment_us(month) < project.pruned_before_us:
        raise ServiceError("since", "events of that time were pruned: their roll-ups cannot be built anew")
    while month <= until:
        following = (month + timedelta(days=32)).replace(day=1)
        if not dry_run:
            with writing(project.pk) as accounts:
                _hold(accounts.sql)
                _rebuild(accounts, month, following)
        yield month
        month = following


def moment_us(day: date) -> int:
    """The first moment of *day* in UTC."""
    return to_us(datetime(day.year, day.month, day.day, tzinfo=timezone.utc))


def _rebuild(accounts: Accounts, start: date, end: date) -> None:
    project_pk, sql = accounts.project_pk, accounts.sql
    days = {"project_id": project_pk, "day__gte": start, "day__lt": end}
    rows(DailyUsage).filter(**days).delete()
    rows(DailyGate).filter(**days).delete()
    rows(UserUsage).filter(project_id=project_pk, starts__gte=start, starts__lt=end).delete()
    span = {
        "project_id": project_pk,
        "timestamp_us__gte": moment_us(start),
        "timestamp_us__lt": moment_us(end),
    }
    step: list[Counted] = []
    for row in rows(UsageEvent).filter(**span).values_list(*_COUNTED).iterator(_EVENTS_PER_STEP):
        step.append(counted(row))
        if len(step) == _EVENTS_PER_STEP:
            roll_up(sql, project_pk, step, 0)
            step = []
    roll_up(sql, project_pk, step, 0)
    gates = (
        rows(GateEvent)
        .filter(**span)
        .values_list("timestamp_us", "status", "gate_reason", "blocked", "count")
    )
    decided = (
        (at, status, reason or "", blocked, count) for at, status, reason, blocked, count in gates.iterator()
    )
    roll_up_gates(sql, project_pk, decided, 0)


def counted(row: tuple[Any, ...]) -> Counted:
    """What a roll-up needs to know of a row with the columns above."""
    user_pk, plan_id, timestamp_us, model, tag, input_tokens, output_tokens, cost_nusd, estimated, source = (
        row
    )
    return Counted(
        user_pk, plan_id, timestamp_us, model or "", tag, input_tokens, output_tokens, cost_nusd, estimated,
        source == "correction",
    )  # fmt: skip


def _hold(sql: Sql) -> None:
    """
    Let nobody add to the roll-ups until the transaction ends.

    Ledgers write an event before its roll-ups: those who wait now have written events that we do not see yet,
    and add them after us. SQLite has one writer anyway, and MySQL cannot lock a table within a transaction:
    there, roll up what has ended.
    """
    if sql.vendor == "postgresql":
        tables = ", ".join(sql.table(model) for model in (DailyUsage, UserUsage, DailyGate))
        sql.run(f"LOCK TABLE {tables} IN EXCLUSIVE MODE")
