"""
The JSON of the backend's REST API: usage events, gate events and lease operations, read and written.

Both ends use it, so that there is one place that says what a field means. Money travels as US dollars for
clients and as integer nano-dollars between us (``cost_nusd`` wins); moments as ISO 8601 in UTC.
"""

from __future__ import annotations

import re
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from paygent.core.bounds import EVENT_COST_USD_MAX, EVENT_TOKENS_MAX
from paygent.core.events import Event
from paygent.core.plan import NUSD_PER_USD
from paygent.core.pricing import usd_to_nusd
from paygent.core.windows import from_us, to_us
from paygent.ledger import GateRow

COST_MAX_NUSD = EVENT_COST_USD_MAX * NUSD_PER_USD
CORRECTION = "correction"
_NUMBER_MAX = 1e18
TEXT_LENGTH_MAX = 10_000
NAME_LENGTH_MAX = 512
TOOLS_MAX = 1000

T = TypeVar("T")
MOMENT_MAX_US = 7_258_118_400_000_000  # the year 2200: what lies beyond is no call
_fraction = re.compile(r"\.([0-9]+)")
_is_period = re.compile(r"p-?[0-9]{1,17}").fullmatch
_is_session = re.compile(r"s[0-9]{1,17}:.{1,1000}", re.DOTALL).fullmatch
_is_uuid = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch
_TOKEN_FIELDS = (
    "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens",
    "reasoning_output_tokens",
)  # fmt: skip
_GOOD_MAX = 1000
_good_names: set[tuple[str | None, ...]] = set()
_NAME_FIELDS = ("provider", "operation", "model", "request_model", "response_model", "rate_source")


class WireError(ValueError):
    """A value that cannot be what its field says; ``field`` is its path, ``detail`` one sentence."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}")
        self.field = field
        self.detail = detail


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
        _count(said, name, lowest) for name in _TOKEN_FIELDS
    ]
    cost_tokens_nusd, cost_tools_nusd = _costs(said)
    provider, operation, model, request_model, response_model, rate_source = _names(said)
    return Event(
        uuid_of(said), required_text(said, "user_id"), moment_us(said, "timestamp"),
        _key(said, "period", _is_period), _key(said, "session", _is_session),
        _text(said, "session_id", NAME_LENGTH_MAX), provider, operation, model,
        request_model if "request_model" in said else model, response_model,
        given, written, cache_read, cache_write, reasoning, cost_tokens_nusd, cost_tools_nusd,
        _tools(said), metadata_of(said), _text(said, "source", 32) or "auto", int(flag(said, "estimated")),
        int(flag(said, "cost_explicit")), rate_source, _text(said, "description", TEXT_LENGTH_MAX),
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
    names = tuple(_text(said, name, NAME_LENGTH_MAX) for name in _NAME_FIELDS)
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
        uuid_of(said), required_text(said, "user_id"), moment_us(said, "timestamp"),
        _text(said, "session_id", NAME_LENGTH_MAX), status, _text(said, "gate_reason", NAME_LENGTH_MAX * 2),
        _number(said, "usage_pct"), _number(said, "current_value"), _number(said, "limit_value"),
        _text(said, "model", NAME_LENGTH_MAX), int(flag(said, "blocked")),
        _text(said, "message", TEXT_LENGTH_MAX), metadata_of(said), _count(said, "count") or 1,
    )  # fmt: skip


# --- fields -----------------------------------------------------------------------------------------------


def required(said: Mapping[str, Any], name: str, kind: Callable[[Mapping[str, Any], str], T | None]) -> T:
    """
    A field that must be there.

    Raises:
        WireError: It is not, or *kind* does not take it.
    """
    value = kind(said, name)
    if value is None:
        raise WireError(name, "is required")
    return value


def required_text(said: Mapping[str, Any], name: str) -> str:
    """
    A text of 1 to 512 characters.

    Raises:
        WireError: It is none.
    """
    text = _text(said, name, NAME_LENGTH_MAX)
    if not text:
        raise WireError(name, "is required")
    return text


def uuid_of(said: Mapping[str, Any]) -> str:
    """
    The field ``id``, in the one form in which ids are compared.

    Raises:
        WireError: It is no UUID.
    """
    value = said.get("id")
    if type(value) is str:
        if _is_uuid(value):
            return value
        try:
            return str(uuid.UUID(value))
        except ValueError:
            pass
    raise WireError("id", "must be a UUID")


def moment_us(said: Mapping[str, Any], name: str) -> int:
    """
    A moment in microseconds since the epoch; one without an offset is UTC.

    Raises:
        WireError: It is no ISO 8601 date and time.
    """
    value = said.get(name)
    try:
        found_us = to_us(_iso(value))  # type: ignore[arg-type]  # what is no text is caught
    except (AttributeError, TypeError, ValueError, OverflowError):
        raise WireError(name, "must be an ISO 8601 date and time") from None
    if not 0 <= found_us < MOMENT_MAX_US:
        raise WireError(name, "must lie between the years 1970 and 2200")
    return found_us


def _iso(text: str) -> datetime:
    """Python 3.10 reads neither a Z nor a fraction of other than three or six digits."""
    if sys.version_info < (3, 11):
        text = _fraction.sub(lambda hit: f".{hit[1]:0<6.6}", text.replace("Z", "+00:00"))
    return datetime.fromisoformat(text)


def metadata_of(said: Mapping[str, Any]) -> dict[str, Any] | None:
    """
    The field ``metadata``; an empty object is none.

    Raises:
        WireError: It is no object.
    """
    metadata = said.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise WireError("metadata", "must be an object")
    feature = metadata.get("feature") if metadata else None
    if type(feature) is str:  # usage is added up by it
        storable(feature, "metadata.feature")
    return metadata or None


def _key(said: Mapping[str, Any], name: str, fits: Callable[[str], object]) -> str:
    """The key of a window, as :mod:`paygent.core.windows` writes it; empty where the client knows none."""
    key = _text(said, name, 2 * NAME_LENGTH_MAX) or ""
    if key and not fits(key):
        raise WireError(name, "is not the key of a window")
    return key


def flag(said: Mapping[str, Any], name: str) -> bool:
    """
    A boolean, false where it is missing.

    Raises:
        WireError: It is none.
    """
    value = said.get(name)
    if value is None:
        return False
    if type(value) is not bool:
        raise WireError(name, "must be true or false")
    return value


def _text(said: Mapping[str, Any], name: str, length_max: int) -> str | None:
    value = said.get(name)
    if value is None:
        return None
    if type(value) is not str:
        raise WireError(name, "must be text")
    if len(value) > length_max:
        raise WireError(name, f"must have at most {length_max} characters")
    return storable(value, name)


def storable(text: str, name: str) -> str:
    """
    *text*, if it can be stored anywhere.

    Raises:
        WireError: It holds half of a surrogate pair.
    """
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise WireError(name, "holds a lone surrogate, which no encoding can store") from None
    return text


def _count(said: Mapping[str, Any], name: str, lowest: int = 0) -> int:
    value = said.get(name)
    if value is None:
        return 0
    if type(value) is not int or not lowest <= value <= EVENT_TOKENS_MAX:
        raise WireError(name, f"must be a whole number from 0 to {EVENT_TOKENS_MAX}")
    return value


def _number(said: Mapping[str, Any], name: str) -> float:
    value = said.get(name)
    if value is None:
        return 0.0
    if type(value) not in (int, float) or not abs(value) < _NUMBER_MAX:  # nor NaN, nor infinity
        raise WireError(name, "must be a finite number")
    return float(value)


def each(items: Sequence[object], read: Callable[[object], T]) -> tuple[list[T], list[dict[str, Any]]]:
    """What *read* takes of *items*, and for each of the others its id, field and what is wrong with it."""
    taken: list[T] = []
    rejected: list[dict[str, Any]] = []
    for item in items:
        try:
            taken.append(read(item))
        except WireError as error:
            name = item.get("id") if isinstance(item, dict) else None
            told = name if isinstance(name, str) else None
            rejected.append({"id": told, "field": error.field, "detail": error.detail})
    return taken, rejected
