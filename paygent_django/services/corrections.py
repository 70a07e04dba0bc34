"""Corrections: new rows that take back what others say, never edits."""

from __future__ import annotations

import uuid

from paygent.core.events import Event
from paygent_django.ledger._events import CORRECTS
from paygent_django.models import EndUser, UsageEvent
from paygent_django.models.usage import CORRECTION
from paygent_django.services import _base
from paygent_django.services._base import ServiceError, ledger_of, rows
from paygent_django.services.values import to_core

_AMOUNTS = tuple(name for name in Event._fields if name.endswith(("_tokens", "_nusd")))
_NAMESPACE = uuid.UUID("0b7a9c52-8f5e-5c3b-9d0a-6f1f7f0c9d11")


def refund(event: UsageEvent, *, reason: str = "", by: str = "") -> UsageEvent:
    """
    Take one event back, in the period and the session that it counts in; the user has that much more.

    A second refund of the same event changes nothing, and returns the first.

    Raises:
        ServiceError: The event is itself a correction.
    """
    if event.source == CORRECTION:
        raise ServiceError("event", "a correction cannot be taken back")
    event = rows(UsageEvent).select_related("user__project").get(pk=event.pk)
    user: EndUser = event.user
    correction = _opposite(to_core(event), f"{user.project.uuid}/{event.event_id}", reason, by)
    ledger_of(user.project).settle([correction])
    made: UsageEvent = rows(UsageEvent).get(project_id=user.project_id, event_id=correction.id)
    return made


def _opposite(event: Event, name: str, reason: str, by: str) -> Event:
    return event._replace(
        id=str(uuid.uuid5(_NAMESPACE, name)),
        timestamp_us=_base.now_us(),
        source=CORRECTION,
        tool_calls=(),
        metadata={CORRECTS: event.id, "reason": reason, "by": by, **_feature(event)},
        description=reason or None,
        **{name: -getattr(event, name) for name in _AMOUNTS},
    )


def _feature(event: Event) -> dict[str, object]:
    """The refund counts for the same feature as what it takes back."""
    feature = (event.metadata or {}).get("feature")
    return {} if feature is None else {"feature": feature}
