"""What is worth telling: decided once per user, limit and period, by a unique row per address."""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from paygent.core.balance import UNLIMITED
from paygent.core.windows import Window
from paygent.ledger import GateRow
from paygent.wire.events import gate_as_json
from paygent_django import services
from paygent_django.database import database_alias
from paygent_django.models import EndUser, Project, WebhookDelivery, WebhookEndpoint
from paygent_django.services import Usage
from paygent_django.services._base import rows
from paygent_django.services.usage import scopes_of
from paygent_django.webhooks import worker

log = logging.getLogger("paygent")

THRESHOLDS = (50, 80, 100)  # per cent of a limit
_NAMESPACE = uuid.UUID("5d1a2f0c-37c5-5f6e-9a0a-0f4f5b8d7e21")
_KEPT_S = 2.0  # a new address is heard of everywhere after so long
_TOLD_MAX = 50_000
_USERS_PER_QUERY = 400


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


_lock = threading.Lock()
_endpoints: dict[tuple[str, int], tuple[float, list[WebhookEndpoint]]] = {}
_told: set[uuid.UUID] = set()


def note_usage(project: Project, user_ids: Collection[str]) -> None:
    """Tell which of *user_ids* have used up 50, 80 and 100 % of a limit. Never raises."""
    _guarded(lambda: queue_usage(project, user_ids))


def note_gates(project: Project, gates: Sequence[GateRow]) -> None:
    """Tell who was warned, met a limit or was blocked. Never raises."""
    _guarded(lambda: queue_gates(project, gates))


def queue_usage(project: Project, user_ids: Collection[str]) -> None:
    """As :func:`note_usage`; raises what the database raises."""
    endpoints = _listening(project) if user_ids else []
    if endpoints:
        _queue(project, endpoints, _of_usages(project, user_ids))


def queue_gates(project: Project, gates: Sequence[GateRow]) -> None:
    """As :func:`note_gates`; raises what the database raises."""
    endpoints = _listening(project) if gates else []
    if endpoints:
        _queue(project, endpoints, _of_gates(project, gates))


def forget(project_pk: int) -> None:
    """The addresses of a project have changed."""
    with _lock:
        _endpoints.pop((database_alias(), project_pk), None)


def _guarded(queue: Callable[[], None]) -> None:
    """What is to be told must not undo what has happened: the usage is in the books."""
    try:
        queue()
    except Exception:
        log.exception("webhooks: what happened could not be queued")


def _listening(project: Project) -> list[WebhookEndpoint]:
    key, now_s = (database_alias(), project.pk), time.monotonic()
    known = _endpoints.get(key)
    if known is not None and now_s < known[0]:
        return known[1]
    found = list(rows(WebhookEndpoint).filter(project=project, is_enabled=True))
    with _lock:
        _endpoints[key] = now_s + _KEPT_S, found
    return found


def _of_usages(project: Project, user_ids: Collection[str]) -> Iterator[News]:
    names = sorted(user_ids)
    for start in range(0, len(names), _USERS_PER_QUERY):
        chosen = names[start : start + _USERS_PER_QUERY]
        found = rows(EndUser).filter(project=project, external_user_id__in=chosen)
        users = list(found.order_by("pk"))  # as the ledger locks them: their deliveries refer to their rows
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


def _of_gates(project: Project, gates: Iterable[GateRow]) -> Iterator[News]:
    users: dict[str, EndUser | None] = {}
    for row in gates:
        if row.user_id not in users:
            users[row.user_id] = services.find_user(project, row.user_id)
        user = users[row.user_id]
        if user is None:
            continue
        period = services.period_of(user, row.timestamp_us)
        data = {**gate_as_json(row), "paygent_user_id": str(user.uuid), "period": period.key}
        for event in (row.status, *(("blocked",) if row.blocked else ())):
            yield News(event, user, period, str(row.gate_reason), data)


def _queue(project: Project, endpoints: Sequence[WebhookEndpoint], news: Iterable[News]) -> None:
    """A delivery per address; its id is made of what it tells, so that a second one is no new row."""
    wanted = {
        made: (endpoint, piece)
        for piece in news
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
    with _lock:
        if len(_told) > _TOLD_MAX:
            _told.clear()
        _told.update(wanted)
    worker.poke()


def _forget_after_fork() -> None:
    """The lock may have been held while this child was forked."""
    global _lock  # noqa: PLW0603  # one per process
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
