"""The row of one metered call, as it is journalled, settled and kept."""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

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


# What JSON does not know is kept as text: an event must never be lost for the sake of its metadata.
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False, skipkeys=True, default=str).encode
_TOOLS = Event._fields.index("tool_calls")
# Where in an event they are, for the path of every call: by name, a field costs ten times as much.
ID: Final = 0
INPUT_TOKENS: Final = 11
OUTPUT_TOKENS: Final = 12
COST_TOKENS: Final = 16
COST_TOOLS: Final = 17


_quoted = json.encoder.encode_basestring_ascii
_MIDDLES_MAX = 1000
_middles: dict[tuple[str | None, ...], tuple[str, str]] = {}


def encode(event: Event) -> str:
    """One line of ASCII text without a line break: the JSON array of the fields, in order."""
    (
        event_id, user_id, timestamp_us, period, session, session_id, provider, operation, model,
        request_model, response_model, input_tokens, output_tokens, cache_read, cache_write, reasoning,
        tokens_nusd, tools_nusd, tool_calls, metadata, source, estimated, cost_explicit, rate_source,
        description,
    ) = event  # fmt: skip
    if tool_calls or metadata is not None or description is not None or session_id is None:
        return _encode(event)
    key = (provider, operation, model, request_model, response_model, source, rate_source)
    middle = _middles.get(key)
    if middle is None:
        middle = _middle(key)
    names, rate_source = middle
    # By hand, because this line is on the path of every call: the encoder takes four times as long.
    return (
        f'["{event_id}",{_quoted(user_id)},{timestamp_us},"{period}",{_quoted(session)},{_quoted(session_id)},'
        f"{names},{input_tokens},{output_tokens},{cache_read},{cache_write},{reasoning},{tokens_nusd},"
        f'{tools_nusd},[],null,"{source}",{estimated},{cost_explicit},{rate_source},null]'
    )


def _middle(key: tuple[str | None, ...]) -> tuple[str, str]:
    """The names of a model's calls as JSON; users choose some of them, so what is kept is bounded."""
    if len(_middles) >= _MIDDLES_MAX:
        _middles.clear()
    middle = _middles[key] = _encode(key[:5])[1:-1], _encode(key[6])
    return middle


def decode(line: str) -> Event:
    """
    Read back what :func:`encode` wrote.

    Raises:
        ValueError: *line* is not such a row.
    """
    values = json.loads(line)
    if not isinstance(values, list) or len(values) != len(Event._fields):
        raise ValueError("not an event row")
    values[_TOOLS] = tuple(values[_TOOLS] or ())
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
