"""What is removed of a user besides his name: texts of the app's that may say who he is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from django.db.models import Case, Model, Sum, Value, When

from paygent.core.windows import from_us
from paygent_django.database import database_alias
from paygent_django.ledger._accounts import Accounts
from paygent_django.ledger._events import MEASURES, digest
from paygent_django.ledger._sql import chunks
from paygent_django.models import (
    DailyUsage,
    EndUser,
    GateEvent,
    Grant,
    Job,
    Lease,
    Session,
    Subscription,
    Total,
    UsageEvent,
    WebhookDelivery,
)
from paygent_django.services._base import rows
from paygent_django.services.reconcile import by_day

_DAY_US = 86_400_000_000
_SESSIONS_PER_STATEMENT = 300  # three values each, of the 999 that SQLite took before 3.32


def forget(accounts: Accounts, user: EndUser) -> None:
    """
    Remove names of sessions, descriptions, tags, names of tools, metadata, messages, reasons and references.

    What waits to be told of the user is told no more. Call it with his row locked and renamed: whoever is
    about to queue more waits for that.
    """
    sessions = rows(Total).filter(user=user, window__startswith="s").values_list("window", flat=True)
    for some in chunks(list(sessions), _SESSIONS_PER_STATEMENT):
        _rename_sessions(user, some)
    _untag(accounts, user)
    gone = {"metadata": None, "session_id": None}
    _overwrite(UsageEvent, user, description=None, tool_calls=None, tag="", **gone)
    _overwrite(GateEvent, user, message=None, **gone)
    _overwrite(Job, user, **gone)
    _overwrite(Subscription, user, reference="")
    for pk, key in list(rows(Grant).filter(user=user).values_list("pk", "key")):
        rows(Grant).filter(pk=pk).update(key=digest(key), reason="")
    for model in (Session, Lease, WebhookDelivery):
        rows(model).filter(user=user).delete()


def _overwrite(model: type[Model], user: EndUser, **changes: Any) -> None:
    """The one change of rows that are append-only: what the law has removed."""
    model._base_manager.using(database_alias()).filter(user=user).update(**changes)


def _rename_sessions(user: EndUser, sessions: Sequence[str]) -> None:
    """
    Sessions may be named by the app, after who knows what; when they began stays, and their sums.

    Many in one statement: no index leads to the events of a session, so that each reads all of the user's.
    """
    plain = {session: f"{session.partition(':')[0]}:{digest(session)}" for session in sessions}
    keys = {session: digest("session_spend", name) for session, name in plain.items()}
    events = UsageEvent._base_manager.using(database_alias())
    events.filter(user=user, session__in=sessions).update(session=_instead_of("session", plain))
    totals = rows(Total).filter(user=user, window__in=sessions)
    totals.update(key=_instead_of("window", keys))  # by itself: MySQL would look for the window's new name
    totals.update(window=_instead_of("window", plain))


def _instead_of(column: str, words: Mapping[str, str]) -> Case:
    return Case(*(When(**{column: old}, then=Value(new)) for old, new in words.items()))


def _untag(accounts: Accounts, user: EndUser) -> None:
    """Have the project's sums by day count the user's tagged events as those without a tag."""
    moved: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    left: set[tuple[date, str]] = set()
    tagged = by_day(accounts.sql, "plan_id, model, tag", "user_id = %s AND tag <> ''", (user.pk,))
    for plan_id, model, tag, days, *sums in tagged:
        day, amounts = from_us(days * _DAY_US).date(), [int(amount) for amount in sums]
        left.add((day, digest(plan_id, model or "", tag)))
        for name, sign in ((tag, -1), ("", 1)):
            key = (str(day), digest(plan_id, model or "", name), plan_id, model or "", name)
            before = moved.get(key, (0,) * len(MEASURES))
            moved[key] = tuple(a + sign * b for a, b in zip(before, amounts, strict=True))
    accounts.sql.add(
        DailyUsage, ("project_id", "day", "key", "plan_id", "model", "tag", "shard", *MEASURES),
        ("project_id", "day", "key", "shard"), MEASURES,
        [
            (accounts.project_pk, *key, 0, *moved[key])
            for key in sorted(moved, key=lambda key: key[:2])
        ],
    )  # fmt: skip
    _drop_empty(user, sorted(left))


def _drop_empty(user: EndUser, keys: list[tuple[date, str]]) -> None:
    """Remove sums of tags that nobody else has used; locked, so that nobody adds to them meanwhile."""
    for day, key in keys:
        found = rows(DailyUsage).filter(project_id=user.project_id, day=day, key=key)
        pks = [row.pk for row in found.select_for_update().order_by("shard")]
        sums = rows(DailyUsage).filter(pk__in=pks).aggregate(**{name: Sum(name) for name in MEASURES})
        if not any(sums.values()):
            rows(DailyUsage).filter(pk__in=pks).delete()
