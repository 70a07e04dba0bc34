"""Every counter computed anew from the rows it counts, and compared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from django.db import connections
from django.db.models import Sum

from paygent.core.plan import MODEL_COST, MODEL_LIMIT, SESSION_SPEND, TOTAL_SPEND
from paygent.core.windows import from_us
from paygent_django.database import database_alias
from paygent_django.ledger._events import MEASURES, digest
from paygent_django.ledger._sql import Sql
from paygent_django.models import DailyUsage, EndUser, Grant, Project, Total, UsageEvent, UserUsage
from paygent_django.models.fields import unescape
from paygent_django.services._base import rows, writing
from paygent_django.services.rollup import moment_us

_USERS_PER_STEP = 300
Key = tuple[Any, ...]
Counts = dict[Key, Any]


class Difference(NamedTuple):
    """
    A counter that does not say what its rows add up to.

    ``kind`` is ``total``, ``user_usage``, ``daily_usage`` or ``grant``; ``name`` says which one. Values are
    integers, or sums of a roll-up in the order of its measures.
    """

    kind: str
    user_id: str
    name: str
    stored: Any
    counted: Any


def reconcile(project: Project) -> Iterator[Difference]:
    """
    Compare every counter with its rows; yields what differs, nothing if all is well.

    A difference is looked at again with the user's row locked, so that traffic in between is none. Roll-ups
    from before a prune are all that is left of that time, and are not compared.
    """
    users = rows(EndUser).filter(project=project).order_by("pk")
    last_pk = 0
    while page := list(users.filter(pk__gt=last_pk)[:_USERS_PER_STEP]):
        last_pk = page[-1].pk
        doubtful = {found[1] for found in _of_users(project, page)}
        again = [user for user in page if user.pk in doubtful]
        if again:
            names = {user.pk: user.external_user_id for user in again}
            with writing(project.pk) as accounts:
                accounts.lock(list(names.values()))
                confirmed = list(_of_users(project, again))
            for kind, pk, name, stored, counted in confirmed:
                yield Difference(kind, names[pk], name, stored, counted)
    yield from _of_project(project)


def mend(project: Project) -> Iterator[Difference]:
    """Set every total and grant that differs to what its rows add up to; yields what differed."""
    for found in list(reconcile(project)):
        if found.kind in ("total", "grant"):
            _mend(project, found)
            yield found


def _mend(project: Project, found: Difference) -> None:
    with writing(project.pk) as accounts:
        accounts.lock([found.user_id])
        user = rows(EndUser).get(project=project, external_user_id=found.user_id)
        if found.kind == "grant":
            rows(EndUser).filter(pk=user.pk).update(grant_nusd=_granted([user])[user.pk])
            return
        scope, window = found.name.split(" in ", 1)
        counted = _totals(accounts.sql, [user]).get((user.pk, scope, window), 0)
        key = {"user": user, "key": digest(scope, window)}
        if counted:
            rows(Total).update_or_create(
                **key, defaults={"amount": counted, "scope": scope, "window": window}
            )
        else:
            rows(Total).filter(**key).delete()


# -- per user ---------------------------------------------------------------------------------------------


def _of_users(project: Project, users: Sequence[EndUser]) -> Iterator[tuple[str, int, str, Any, Any]]:
    sql = Sql(connections[database_alias()])
    try:
        pks = [user.pk for user in users]
        stored: Counts = {
            (pk, scope, window): amount
            for pk, scope, window, amount in rows(Total)
            .filter(user_id__in=pks)
            .values_list("user_id", "scope", "window", "amount")
        }
        for (pk, scope, window), *values in _differing(stored, _totals(sql, users)):
            yield "total", pk, f"{scope} in {window}", *values
        since_us = project.pruned_before_us
        for (pk, grain, starts), *values in _differing(
            _stored_usage(pks, since_us), _usage(sql, pks, since_us)
        ):
            yield "user_usage", pk, f"{'month' if grain == UserUsage.MONTH else 'day'} {starts}", *values
    finally:
        sql.close()
    granted = _granted(users)
    for user in rows(EndUser).filter(pk__in=pks):
        if user.grant_nusd != granted[user.pk]:
            yield "grant", user.pk, user.grant_window, user.grant_nusd, granted[user.pk]


def _differing(stored: Counts, counted: Counts) -> Iterator[tuple[Key, Any, Any]]:
    """What is not there counts as nothing."""
    for key in sorted({*stored, *counted}, key=str):
        one, other = stored.get(key, 0), counted.get(key, 0)
        if one != other and (_nothing(one), _nothing(other)) != (True, True):
            yield key, one, other


def _nothing(value: Any) -> bool:
    return not any(value) if isinstance(value, tuple) else not value


def _totals(sql: Sql, users: Sequence[EndUser]) -> Counts:
    """What the events add to the totals, as ``paygent.core.events.posts`` says it, summed by the database."""
    where, pks = sql.among("user_id", [user.pk for user in users])
    events = sql.table(UsageEvent)
    sums: Counts = defaultdict(int)
    query = f"SELECT user_id, period, SUM(cost_nusd) FROM {events} WHERE {where} GROUP BY user_id, period"  # noqa: S608
    for pk, period, cost in sql.rows(query, pks):
        sums[pk, TOTAL_SPEND, period] += int(cost)
    query = f"SELECT user_id, session, SUM(cost_nusd) FROM {events} WHERE {where} GROUP BY user_id, session"  # noqa: S608
    for pk, session, cost in sql.rows(query, pks):
        sums[pk, SESSION_SPEND, unescape(session)] += int(cost)
    for pk, period, model, tokens, cost in sql.rows(
        "SELECT user_id, period, model, SUM(input_tokens + output_tokens), SUM(cost_nusd) "  # noqa: S608
        f"FROM {events} WHERE {where} AND model IS NOT NULL GROUP BY user_id, period, model",
        pks,
    ):
        sums[pk, MODEL_LIMIT + unescape(model), period] += int(tokens)
        sums[pk, MODEL_COST + unescape(model), period] += int(cost)
    return dict(sums)


def _usage(sql: Sql, pks: Sequence[int], since_us: int) -> Counts:
    where, values = sql.among("user_id", pks)
    sums: dict[Key, list[int]] = defaultdict(lambda: [0] * len(MEASURES))
    for pk, day, *measures in by_day(sql, "user_id", f"{where} AND timestamp_us >= %s", (*values, since_us)):
        starts = from_us(day * 86_400_000_000).date()
        for key in ((pk, UserUsage.DAY, starts), (pk, UserUsage.MONTH, starts.replace(day=1))):
            for index, amount in enumerate(measures):
                sums[key][index] += int(amount)
    return {key: tuple(value) for key, value in sums.items() if _is_whole(key[1], key[2], since_us)}


def _stored_usage(pks: Sequence[int], since_us: int) -> Counts:
    found = rows(UserUsage).filter(user_id__in=pks).values_list("user_id", "grain", "starts", *MEASURES)
    return {
        (pk, grain, starts): tuple(measures)
        for pk, grain, starts, *measures in found
        if _is_whole(grain, starts, since_us)
    }


def _is_whole(_grain: int, starts: Any, since_us: int) -> bool:
    """Whether no event of that day or month was pruned."""
    return moment_us(starts) >= since_us


def _granted(users: Sequence[EndUser]) -> dict[int, int]:
    sums = {
        (pk, window): amount
        for pk, window, amount in rows(Grant)
        .filter(user__in=users)
        .values_list("user_id", "window")
        .annotate(Sum("amount_nusd"))
        .order_by()
    }
    return {user.pk: sums.get((user.pk, user.grant_window), 0) for user in users}


# -- per project ------------------------------------------------------------------------------------------


def _of_project(project: Project) -> Iterator[Difference]:
    """The roll-ups of the project; under traffic those of today may differ by what is just being written."""
    with writing(project.pk) as accounts:
        counted = _daily(accounts.sql, project)
        stored = _stored_daily(project)
    for key, one, other in _differing(stored, counted):
        yield Difference("daily_usage", "", " ".join(map(str, key)), one, other)


def _daily(sql: Sql, project: Project) -> Counts:
    where = "project_id = %s AND timestamp_us >= %s"
    sums: Counts = {}
    found = by_day(sql, "plan_id, model, tag", where, (project.pk, project.pruned_before_us))
    for plan_id, model, tag, day, *measures in found:
        starts = from_us(day * 86_400_000_000).date()
        key = starts, plan_id, unescape(model or ""), unescape(tag)
        before: Sequence[int] = sums.get(key, (0,) * len(MEASURES))
        sums[key] = tuple(a + int(b) for a, b in zip(before, measures, strict=True))
    return {key: value for key, value in sums.items() if moment_us(key[0]) >= project.pruned_before_us}


def _stored_daily(project: Project) -> Counts:
    since = from_us(project.pruned_before_us + 86_399_999_999).date() if project.pruned_before_us else None
    found = rows(DailyUsage).filter(project=project)
    found = found.filter(day__gte=since) if since else found
    summed = found.values_list("day", "plan_id", "model", "tag").annotate(*(Sum(name) for name in MEASURES))
    return {(day, plan, model, tag): tuple(values) for day, plan, model, tag, *values in summed.order_by()}


# -- SQL --------------------------------------------------------------------------------------------------


def by_day(sql: Sql, group: str, where: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Sums of the measures by *group* and day (in days since the epoch)."""
    divide = "DIV" if sql.vendor == "mysql" else "/"
    day = f"(timestamp_us {divide} 86400000000)"
    measures = (
        "SUM(CASE WHEN source = 'correction' THEN 0 ELSE 1 END), SUM(input_tokens), SUM(output_tokens), "
        "SUM(cost_nusd), SUM(CASE WHEN estimated THEN cost_nusd ELSE 0 END)"
    )
    events = sql.table(UsageEvent)
    query = f"SELECT {group}, {day}, {measures} FROM {events} WHERE {where} GROUP BY {group}, {day}"  # noqa: S608
    return sql.rows(query, values)
