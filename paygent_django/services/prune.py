"""Old rows, removed; what they add up to in the roll-ups stays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from paygent.core.events import posts
from paygent.core.windows import billing_period
from paygent_django.database import database_alias
from paygent_django.ledger._accounts import Accounts
from paygent_django.ledger._rows import DjangoRows
from paygent_django.models import (
    EndUser,
    GateEvent,
    Lease,
    Project,
    Session,
    Total,
    UsageEvent,
    WebhookDelivery,
)
from paygent_django.services._base import rows, writing
from paygent_django.services.values import to_core

_ROWS_PER_STEP = 500


class Pruned(NamedTuple):
    """How many rows of each kind were removed, or would be."""

    events: int = 0
    gate_events: int = 0
    deliveries: int = 0
    sessions: int = 0
    leases: int = 0


def prune(
    project: Project,
    *,
    before_us: int,
    dry_run: bool = False,
    passing: Callable[[Iterable[EndUser]], Iterable[EndUser]] = iter,
) -> Pruned:
    """
    Remove what is older than *before_us*: decisions, deliveries, ended sessions, and events of past periods.

    A delivery is also the memory that something was told, and stays until its period was over by then.

    An event goes with its whole billing period, and its amounts leave the totals with it, so that totals stay
    the sum of the rows. Roll-ups stay. A removed event that is sent once more counts once more. The users
    whose events go come *passing* by, for a bar that moves.
    """
    gates = rows(GateEvent).filter(project=project, timestamp_us__lt=before_us)
    done = rows(WebhookDelivery).filter(
        endpoint__project=project, created_us__lt=before_us, period_end_us__lt=before_us,
        next_attempt_us__isnull=True,
    )  # fmt: skip
    sessions = rows(Session).filter(user__project=project, ends_us__lt=before_us)
    leases = rows(Lease).filter(user__project=project, expires_us__lt=before_us)
    users = passing(_users(project, before_us))
    events = sum(_of_user(user, before_us, dry_run=dry_run) for user in users)
    if dry_run:
        return Pruned(events, gates.count(), done.count(), sessions.count(), leases.count())
    if events and project.pruned_before_us < before_us:
        rows(Project).filter(pk=project.pk).update(pruned_before_us=before_us)
        project.pruned_before_us = before_us
    removed = (_remove(GateEvent, gates), *(rows_.delete()[0] for rows_ in (done, sessions, leases)))
    return Pruned(events, *removed)


def _users(project: Project, before_us: int) -> list[EndUser]:
    old = rows(UsageEvent).filter(project=project, timestamp_us__lt=before_us)
    return list(rows(EndUser).filter(pk__in=old.values("user_id")).order_by("pk"))


def _of_user(user: EndUser, before_us: int, *, dry_run: bool) -> int:
    """Remove the events of a user's periods that ended before; returns how many."""
    removed = 0
    while True:
        with writing(user.project_id) as accounts:
            accounts.hold((), [user.external_user_id])
            past = _past(accounts, user, before_us)
            if dry_run:
                return int(past.count())
            step = list(past.select_related("user").order_by("pk")[:_ROWS_PER_STEP])
            _take_back(accounts, step)
        removed += len(step)
        if len(step) < _ROWS_PER_STEP:
            return removed


def _past(accounts: Accounts, user: EndUser, before_us: int) -> Any:
    """The events of periods that ended before the one that holds *before_us* began."""
    held = accounts.held(user.external_user_id)
    period = held.account.period if held is not None else None
    kept_from_us = billing_period(period, before_us).start_us
    windows = rows(Total).filter(user=user, scope="total_spend").values_list("window", flat=True)
    past = [window for window in windows if int(window[1:]) < kept_from_us]
    return rows(UsageEvent).filter(user=user, timestamp_us__lt=before_us, period__in=past)


def _take_back(accounts: Accounts, events: Sequence[UsageEvent]) -> None:
    deltas: dict[tuple[str, str, str], int] = defaultdict(int)
    for row in events:
        event = to_core(row)
        for scope, window, amount in posts(event):
            deltas[event.user_id, scope, window] -= amount
    DjangoRows(accounts, shard=0).add(deltas)
    _remove(UsageEvent, rows(UsageEvent).filter(pk__in=[row.pk for row in events]))
    rows(Total).filter(user_id__in={row.user_id for row in events}, amount=0).delete()


def _remove(model: Any, chosen: Any) -> int:
    """The one deletion of rows that are append-only."""
    pks = chosen.values_list("pk", flat=True)
    removed = 0
    while step := list(pks[:_ROWS_PER_STEP]):
        removed += model._base_manager.using(database_alias()).filter(pk__in=step).delete()[0]
    return removed
