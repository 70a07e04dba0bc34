"""Rows as the values of the core, and as JSON can write them."""

from __future__ import annotations

from typing import Any

from paygent.core.events import Event
from paygent.core.windows import from_us
from paygent.ledger import GateRow
from paygent_django.models import GateEvent, UsageEvent

_GATE = (
    "gate_id", "timestamp_us", "session_id", "status", "gate_reason", "blocked", "message",
    "metadata", "count",
)  # fmt: skip


def to_core(row: UsageEvent) -> Event:
    """The event that a row is; read the row with its user."""
    values = {name: getattr(row, name) for name in Event._fields[2:]}
    values["tool_calls"] = tuple(values["tool_calls"] or ())
    values["estimated"], values["cost_explicit"] = int(row.estimated), int(row.cost_explicit)
    return Event(id=row.event_id, user_id=row.user.external_user_id, **values)


def gate_to_core(row: GateEvent) -> GateRow:
    """The decision that a row is; read the row with its user."""
    values = {name: getattr(row, name) for name in GateRow._fields[2:]}
    values["blocked"] = int(row.blocked)
    return GateRow(id=row.gate_id, user_id=row.user.external_user_id, **values)


def event_as_dict(row: UsageEvent) -> dict[str, Any]:
    """A row for an export: its fields, and the time as ISO 8601."""
    values = {name: getattr(row, name) for name in Event._fields[2:] if name != "timestamp_us"}
    return {
        "id": row.event_id,
        "timestamp": from_us(row.timestamp_us).isoformat(),
        **values,
        "cost_nusd": row.cost_nusd,
        "corrects": row.corrects,
    }


def gate_as_dict(row: GateEvent) -> dict[str, Any]:
    """A decision for an export."""
    return {name: getattr(row, name) for name in _GATE}
