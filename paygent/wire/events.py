"""
The JSON of the backend's REST API: usage events, gate events and lease operations, read and written.

Both ends use it, so that there is one place that says what a field means. Money travels as US dollars for
clients and as integer nano-dollars between us (``cost_nusd`` wins); moments as ISO 8601 in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paygent.core.bounds import DESCRIPTION_LENGTH_MAX, EVENT_COST_USD_MAX, EVENT_TOKENS_MAX
from paygent.core.events import Event
from paygent.core.plan import NUSD_PER_USD
from paygent.core.pricing import usd_to_nusd
from paygent.core.windows import from_us
from paygent.ledger import GateRow
from paygent.wire.fields import (
    NAME_LENGTH_MAX,
    WireError,
    count_of,
    flag,
    id_of,
    metadata_of,
    moment_us,
    number_of,
    period_of,
    required_id,
    required_text,
    session_of,
    text_of,
    uuid_of,
)

COST_MAX_NUSD = EVENT_COST_USD_MAX * NUSD_PER_USD
CORRECTION = "correction"
MESSAGE_LENGTH_MAX = 10_000
TOOLS_MAX = 1000
GATE_COUNT_MAX = (1 << 31) - 1  # what a column of a database holds

_TOKEN_FIELDS = (
    "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens",
    "reasoning_output_tokens",
)  # fmt: skip
_GOOD_MAX = 1000
_good_names: set[tuple[str | None, ...]] = set()
_NAME_FIELDS = ("provider", "operation", "model", "request_model", "response_model", "rate_source")


# --- usage events -----------------------------------------------------------------------------------------


def event_as_json(event: Event) -> dict[str, Any]:
    """*event* as it is posted: what clients in the field send, and our own fields beside that."""
    said = event._asdict()
    del said["timestamp_us"]
    said.update(
        timestamp=from_us(event.timestamp_us).isoformat(),
        total_tokens=event.total_tokens,
        tool_calls=list(event.tool_calls),
        cost_tokens=event.cost_tokens_nusd / NUSD_PER_USD,
        cost_tools=event.cost_tools_nusd / NUSD_PER_USD,
        cost_total=event.cost_nusd / NUSD_PER_USD,
        cost_nusd=event.cost_nusd,
        metadata=event.metadata or {},
        estimated=bool(event.estimated),
        cost_explicit=bool(event.cost_explicit),
    )
    return said


def event_from_json(said: object) -> Event:
    """
    Read one posted event.

    ``period`` and ``session`` of a client that does not know its windows are empty: whoever keeps the event
    looks them up. Fields that nobody knows are ignored. A backend's own correction has amounts below zero.

    Raises:
        WireError: A field is missing or cannot be right.
    """
    if not isinstance(said, dict):
        raise WireError("", "must be an object")
    lowest = -EVENT_TOKENS_MAX if said.get("source") == CORRECTION else 0
    given, written, cache_read, cache_write, reasoning = [
        count_of(said, name, lowest) for name in _TOKEN_FIELDS
    ]
    cost_tokens_nusd, cost_tools_nusd = _costs(said)
    provider, operation, model, request_model, response_model, rate_source = _names(said)
    return Event(
        uuid_of(said), required_id(said, "user_id"), moment_us(said, "timestamp"),
        period_of(said), session_of(said),
        id_of(said, "session_id"), provider, operation, model,
        request_model if "request_model" in said else model, response_model,
        given, written, cache_read, cache_write, reasoning, cost_tokens_nusd, cost_tools_nusd,
        _tools(said), metadata_of(said), text_of(said, "source", 32) or "auto", int(flag(said, "estimated")),
        int(flag(said, "cost_explicit")), rate_source, text_of(said, "description", DESCRIPTION_LENGTH_MAX),
    )  # fmt: skip


def posted_event_from_json(said: object) -> Event:
    """
    Read one event that a client posts: the same, but nobody posts a correction.

    Raises:
        WireError: A field is missing or cannot be right.
    """
    if isinstance(said, dict) and said.get("source") not in (None, "auto", "manual"):
        raise WireError("source", "must be auto or manual")
    return event_from_json(said)


def _names(said: Mapping[str, Any]) -> tuple[str | None, ...]:
    """The fields that hold names. An app has few of them, so that most were found good before."""
    found = tuple(map(said.get, _NAME_FIELDS))
    try:
        if found in _good_names:
            return found
    except TypeError:  # what cannot be hashed is no text: _text says which
        pass
    names = tuple(text_of(said, name, NAME_LENGTH_MAX) for name in _NAME_FIELDS)
    if len(_good_names) >= _GOOD_MAX:
        _good_names.clear()
    _good_names.add(names)
    return names


def _costs(said: Mapping[str, Any]) -> tuple[int, int]:
    """Cost of tokens and of tools; the total wins where a client's parts do not add up to it."""
    if said.get("source") == CORRECTION:
        return _whole_nusd(said, "cost_tokens_nusd"), _whole_nusd(said, "cost_tools_nusd")
    tools = _nusd(said, "cost_tools")
    total = _nusd(said, "cost", exact="cost_nusd", usd="cost_total")
    if total is None:
        tokens = _nusd(said, "cost_tokens")
        return tokens or 0, tools or 0
    tools = min(tools or 0, total)
    return total - tools, tools


def _nusd(
    said: Mapping[str, Any], name: str, *, exact: str | None = None, usd: str | None = None
) -> int | None:
    """An amount in nano-dollars: the integer field *exact* if it is there, else the field in US dollars."""
    exact, usd = exact or f"{name}_nusd", usd or name
    if (nusd := said.get(exact)) is not None:
        if type(nusd) is not int or not 0 <= nusd <= COST_MAX_NUSD:
            raise WireError(exact, f"must be a whole number of nano-dollars from 0 to {COST_MAX_NUSD}")
        return nusd
    amount = said.get(usd)
    if amount is None:
        return None
    if type(amount) not in (int, float) or not 0 <= amount <= EVENT_COST_USD_MAX:  # nor NaN, nor infinity
        raise WireError(usd, f"must be a number of US dollars from 0 to {EVENT_COST_USD_MAX}")
    return usd_to_nusd(amount) if amount else 0


def _whole_nusd(said: Mapping[str, Any], name: str) -> int:
    nusd = said.get(name)
    if type(nusd) is not int or abs(nusd) > COST_MAX_NUSD:
        raise WireError(name, "must be a whole number of nano-dollars")
    return nusd


def _tools(said: Mapping[str, Any]) -> tuple[str, ...]:
    tools = said.get("tool_calls")
    if tools is None:
        return ()
    if (
        not isinstance(tools, list)
        or not all(type(tool) is str and len(tool) <= NAME_LENGTH_MAX for tool in tools)
        or len(tools) > TOOLS_MAX
    ):
        raise WireError("tool_calls", f"must be a list of at most {TOOLS_MAX} names")
    return tuple(tools)


# --- gate events ------------------------------------------------------------------------------------------


def gate_as_json(row: GateRow) -> dict[str, Any]:
    """One decision for the audit trail."""
    said = row._asdict()
    del said["timestamp_us"]
    said.update(
        timestamp=from_us(row.timestamp_us).isoformat(),
        blocked=bool(row.blocked),
        metadata=row.metadata or {},
    )
    return said


def gate_from_json(said: object) -> GateRow:
    """
    Read one posted decision.

    Raises:
        WireError: A field is missing or cannot be right.
    """
    if not isinstance(said, dict):
        raise WireError("", "must be an object")
    status = required_text(said, "status")
    if status not in ("ok", "soft_gate", "hard_gate"):
        raise WireError("status", "must be soft_gate or hard_gate")
    return GateRow(
        uuid_of(said), required_id(said, "user_id"), moment_us(said, "timestamp"),
        id_of(said, "session_id"), status, text_of(said, "gate_reason", NAME_LENGTH_MAX * 2),
        number_of(said, "usage_pct"), number_of(said, "current_value"), number_of(said, "limit_value"),
        text_of(said, "model", NAME_LENGTH_MAX), int(flag(said, "blocked")),
        text_of(said, "message", MESSAGE_LENGTH_MAX), metadata_of(said),
        count_of(said, "count", highest=GATE_COUNT_MAX) or 1,
    )  # fmt: skip
