"""
What is worth telling: decided once per user, limit and period, by a unique row per address.

The ledger notes what happened with the usage itself (see ``ledger._news``). Here the notes are read, what
there is to tell is queued as deliveries, and the notes go in the same transaction: what a process that dies
has not queued, the next one does.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from django.db import connections, transaction

from paygent.core.balance import UNLIMITED
from paygent.core.windows import Window
from paygent.wire.events import gate_as_json
from paygent_django import services
from paygent_django.database import database_alias
from paygent_django.models import EndUser, GateEvent, Project, WebhookDelivery, WebhookEndpoint, WebhookNews
from paygent_django.services import Usage
from paygent_django.services._base import rows
from paygent_django.services.usage import scopes_of
from paygent_django.services.values import gate_to_core
from paygent_django.webhooks import worker

log = logging.getLogger("paygent")

THRESHOLDS = (50, 80, 100)  # per cent of a limit
NEWS_PER_STEP = 400
_NAMESPACE = uuid.UUID("5d1a2f0c-37c5-5f6e-9a0a-0f4f5b8d7e21")
_KEPT_S = 2.0
_TOLD_MAX = 50_000


class News(NamedTuple):
    """Something to tell of a user in a period. ``about`` says of what, so that it is told once."""

    event: str
    user: EndUser
    period: Window
    about: str
    data: dict[str, Any]

    @property
    def key(self) -> str:
        """What it is about, in a word."""
        return f"{self.user.uuid}/{self.period.key}/{self.about}"


class Note(NamedTuple):
    """A row of :class:`WebhookNews`."""

    pk: int
    user_pk: int
    gate_pk: int | None


_lock = threading.Lock()
_heard: dict[tuple[str, int], tuple[float, bool]] = {}
_told: set[uuid.UUID] = set()


def notice(project: Project) -> None:
    """Something of the project was committed: have it told of soon. Never raises."""
    try:
        if not _is_heard(project):
            return
        if worker.is_running():
            worker.poke()
        else:
            tell()
    except Exception:
        log.exception("webhooks: what happened is queued later")


def tell() -> None:
    """Queue what there is to tell of all that was noted; raises what the database raises."""
    while _is_more():
        pass


def _is_more() -> bool:
    return queue_news() >= NEWS_PER_STEP


def queue_news() -> int:
    """Queue what there is to tell of the oldest notes, and remove them; returns how many there were."""
    with _taking():
        notes = _notes()
        if notes:
            _queue_all(notes)
            rows(WebhookNews).filter(pk__in=[note.pk for note in notes]).delete()
    return len(notes)


def count_news() -> int:
    """How many notes wait."""
    return int(rows(WebhookNews).count())


def forget(project_pk: int) -> None:
    """The addresses of a project have changed."""
    with _lock:
        _heard.pop((database_alias(), project_pk), None)


def _is_heard(project: Project) -> bool:
    """Whether the project has an address; one that another process adds is known of after a while."""
    key, now_s = (database_alias(), project.pk), time.monotonic()
    known = _heard.get(key)
    if known is None or now_s >= known[0]:
        is_there = rows(WebhookEndpoint).filter(project=project, is_enabled=True).exists()
        known = now_s + _KEPT_S, is_there
        with _lock:
            _heard[key] = known
    return known[1]


def _can_skip() -> bool:
    return bool(connections[database_alias()].vendor == "postgresql")


def _taking() -> contextlib.AbstractContextManager[Any]:
    """
    A transaction of PostgreSQL, so that each note is taken by one process.

    Elsewhere processes may take the same note, and the unique rows of deliveries decide: SQLite has one lock
    for everything, and MariaDB's locks of a longer transaction cross those of the ledger.
    """
    return transaction.atomic(using=database_alias()) if _can_skip() else contextlib.nullcontext()


def _notes() -> list[Note]:
    waiting = rows(WebhookNews).order_by("pk")
    if _can_skip():
        waiting = waiting.select_for_update(skip_locked=True)
    return [Note._make(row) for row in waiting.values_list("pk", "user_id", "gate_pk")[:NEWS_PER_STEP]]


def _queue_all(notes: Sequence[Note]) -> None:
    """As the ledger locks users, in the order of their keys: deliveries refer to their rows."""
    found = rows(EndUser).filter(pk__in={note.user_pk for note in notes}).select_related("project")
    users = list(found.order_by("pk"))
    spent = {note.user_pk for note in notes if note.gate_pk is None}
    gates = _gates([note.gate_pk for note in notes if note.gate_pk is not None])
    for project in {user.project_id: user.project for user in users}.values():
        endpoints = list(rows(WebhookEndpoint).filter(project=project, is_enabled=True))
        if endpoints:
            own = {user.pk: user for user in users if user.project_id == project.pk}
            usages = _of_usages([user for pk, user in own.items() if pk in spent])
            decisions = _of_gates([gate for gate in gates if gate.user_id in own])
            _queue(project, endpoints, [*usages, *decisions])


def _gates(pks: Collection[int]) -> list[GateEvent]:
    """Of decisions that are alike, the first and the last: they may lie in two periods."""
    found = rows(GateEvent).filter(pk__in=pks).select_related("user").order_by("timestamp_us", "pk")
    first: dict[tuple[Any, ...], GateEvent] = {}
    last: dict[tuple[Any, ...], GateEvent] = {}
    for row in found:
        alike = row.user_id, row.status, row.gate_reason, row.blocked
        first.setdefault(alike, row)
        last[alike] = row
    return list({row.pk: row for row in (*first.values(), *last.values())}.values())


def _of_usages(users: Sequence[EndUser]) -> Iterator[News]:
    for usage in services.usage_of_many(users):
        yield from _crossed(usage)


def _crossed(usage: Usage) -> Iterator[News]:
    for scope in scopes_of(usage.terms):
        limit, used = usage.terms.limit_of(scope).hard, usage.used(scope)
        if not 0 < limit < UNLIMITED:
            continue
        for share in THRESHOLDS:
            if used * 100 >= limit * share:
                data = {
                    "user_id": usage.user.external_user_id, "paygent_user_id": str(usage.user.uuid),
                    "plan": usage.plan, "scope": scope, "threshold_pct": share, "used": used, "limit": limit,
                    "unit": "nusd" if scope == "total_spend" else "tokens", "period": usage.window.key,
                }  # fmt: skip
                yield News(f"threshold_{share}", usage.user, usage.window, scope, data)


def _of_gates(gates: Iterable[GateEvent]) -> Iterator[News]:
    for row in gates:
        user, decision = row.user, gate_to_core(row)
        period = services.period_of(user, row.timestamp_us)
        data = {**gate_as_json(decision), "paygent_user_id": str(user.uuid), "period": period.key}
        for event in (row.status, *(("blocked",) if row.blocked else ())):
            yield News(event, user, period, str(decision.gate_reason), data)


def _queue(project: Project, endpoints: Sequence[WebhookEndpoint], news: Iterable[News]) -> None:
    """A delivery per address; its id is made of what it tells, so that a second one is no new row."""
    wanted = {
        made: (endpoint, piece)
        for piece in sorted(news, key=lambda piece: (piece.user.pk, piece.event, piece.about))
        for endpoint in endpoints
        if not endpoint.events or piece.event in endpoint.events
        if (made := uuid.uuid5(_NAMESPACE, f"{endpoint.uuid}/{piece.event}/{piece.key}")) not in _told
    }
    if not wanted:
        return
    rows(WebhookDelivery).bulk_create(
        [
            WebhookDelivery(
                uuid=made, endpoint=endpoint, user=piece.user, event=piece.event,
                body={"project": project.name, **piece.data}, period_end_us=piece.period.end_us,
            )
            for made, (endpoint, piece) in wanted.items()
        ],
        ignore_conflicts=True,
    )  # fmt: skip
    # Who was made anonymous since he was read is told of no more (see services.anonymise).
    users = {piece.user.pk for _, piece in wanted.values()}
    gone = list(rows(EndUser).filter(pk__in=users, anonymised_us__isnull=False).values_list("pk", flat=True))
    if gone:
        rows(WebhookDelivery).filter(user_id__in=gone).delete()
    transaction.on_commit(lambda: _remember(wanted), using=database_alias())


def _remember(told: Collection[uuid.UUID]) -> None:
    """They are queued: this process need not look at them again."""
    with _lock:
        if len(_told) > _TOLD_MAX:
            _told.clear()
        _told.update(told)
    worker.poke()


def _forget_after_fork() -> None:
    """The lock may have been held while this child was forked."""
    global _lock  # noqa: PLW0603  # one per process
    _lock = threading.Lock()


worker.each_turn(_is_more)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
