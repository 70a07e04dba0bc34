"""The row of one metered call, as it is journalled, settled and kept."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from paygent.core.models import UsageEvent
from paygent.core.plan import MODEL_COST, MODEL_LIMIT, NUSD_PER_USD, SESSION_SPEND, TOTAL_SPEND
from paygent.core.windows import from_us


class Event(NamedTuple):
    """
    One metered call, in integers.

    ``id`` is a UUID made before the event is first written, and the idempotency key for ever.
    ``timestamp_us`` is when the hold was taken, on the ledger's clock; ``period`` and ``session`` are the
    keys of the windows it falls in, fixed at that moment. ``model`` is the name that the plan knows,
    ``request_model`` what was asked for, ``response_model`` what answered.
    """

    id: str
    user_id: str
    timestamp_us: int
    period: str
    session: str
    session_id: str | None
    provider: str | None
    operation: str | None
    model: str | None
    request_model: str | None
    response_model: str | None
    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_write_input_tokens: int
    reasoning_output_tokens: int
    cost_tokens_nusd: int
    cost_tools_nusd: int
    tool_calls: tuple[str, ...] | list[str]
    metadata: dict[str, Any] | None
    source: str
    estimated: int
    cost_explicit: int
    rate_source: str | None
    description: str | None

    @property
    def cost_nusd(self) -> int:
        """What the call cost in all, in nano-dollars."""
        return self.cost_tokens_nusd + self.cost_tools_nusd

    @property
    def total_tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens


def posts(event: Event) -> list[tuple[str, str, int]]:
    """What *event* adds to the totals: scope, window and amount."""
    rows = [
        (TOTAL_SPEND, event.period, event.cost_nusd),
        (SESSION_SPEND, event.session, event.cost_nusd),
    ]
    if event.model is not None:
        rows.append((MODEL_LIMIT + event.model, event.period, event.total_tokens))
        rows.append((MODEL_COST + event.model, event.period, event.cost_nusd))
    return rows


_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False, allow_nan=False).encode


def encode(event: Event) -> str:
    """One line of ASCII text without a line break."""
    return _encode(event)


def decode(line: str) -> Event:
    """
    Read back what :func:`encode` wrote.

    Raises:
        ValueError: *line* is not such a row.
    """
    values = json.loads(line)
    if not isinstance(values, list) or len(values) != len(Event._fields):
        raise ValueError("not an event row")
    return Event._make(values)


def to_model(event: Event, *, synced: bool = False) -> UsageEvent:
    """The public model of *event*."""
    return UsageEvent(
        id=event.id,
        user_id=event.user_id,
        session_id=event.session_id,
        timestamp=from_us(event.timestamp_us),
        model=event.model,
        input_tokens=event.input_tokens,
        output_tokens=event.output_tokens,
        total_tokens=event.total_tokens,
        tool_calls=list(event.tool_calls),
        cost_tokens=event.cost_tokens_nusd / NUSD_PER_USD,
        cost_tools=event.cost_tools_nusd / NUSD_PER_USD,
        cost_total=event.cost_nusd / NUSD_PER_USD,
        metadata=event.metadata or {},
        synced=synced,
        source="manual" if event.source == "manual" else "auto",
        description=event.description,
        cost_explicit=bool(event.cost_explicit),
        cost_nusd=event.cost_nusd,
        estimated=bool(event.estimated),
        rate_source=event.rate_source,
    )
