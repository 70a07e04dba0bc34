"""How values stand in the columns of the PostgreSQL ledger."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from paygent.core.events import Event
from paygent.ledger import GateRow
from paygent.ledgers._postgres_link import Connection
from paygent.ledgers._values import from_json, to_json

EVENT_COLUMNS = ", ".join(Event._fields)
GATE_COLUMNS = ", ".join(GateRow._fields)

_NUMBERS = {
    "timestamp_us", "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens",
    "reasoning_output_tokens", "cost_tokens_nusd", "cost_tools_nusd", "estimated", "cost_explicit",
    "blocked", "count",
}  # fmt: skip
_FLOATS = {"usage_pct", "current_value", "limit_value"}


def put(text: str) -> str:
    """*text* as PostgreSQL can store it: it knows no NUL, so one is written as the two characters 1 and 0."""
    if "\0" in text or "\1" in text:
        return text.replace("\1", "\1" + "1").replace("\0", "\1" + "0")
    return text


def got(text: str) -> str:
    """What :func:`put` was given."""
    if "\1" in text:
        return text.replace("\1" + "0", "\0").replace("\1" + "1", "\1")
    return text


def got_row(row: Iterable[Any]) -> list[Any]:
    """A row, in which each text is what :func:`put` was given."""
    return [got(value) if isinstance(value, str) else value for value in row]


def put_column(column: Sequence[Any]) -> list[Any]:
    """Many values of one column; most columns hold nothing to rewrite, which one look at them all shows."""
    joined = "".join(value for value in column if isinstance(value, str))
    if "\0" in joined or "\1" in joined:
        return [put(value) if isinstance(value, str) else value for value in column]
    return list(column)


def _insert(table: str, columns: str, returning: str) -> str:
    """Many rows in one statement, a list of values for each column."""
    lists = ", ".join(f"%s::{_type(name)}[]" for name in columns.split(", "))
    return (
        f"INSERT INTO paygent.{table} ({columns}) SELECT * FROM unnest({lists}) "  # noqa: S608  # constants
        f"ON CONFLICT (id) DO NOTHING{returning}"
    )


def _type(column: str) -> str:
    return "bigint" if column in _NUMBERS else "double precision" if column in _FLOATS else "text"


INSERT_EVENTS = _insert("events", EVENT_COLUMNS, " RETURNING id")
_INSERT_GATES = _insert("gate_events", GATE_COLUMNS, "")


def event_lists(events: Sequence[Event]) -> list[list[Any]]:
    """The columns of *events*, in the order of their fields."""
    rows = [
        event._replace(
            tool_calls=to_json(list(event.tool_calls)) if event.tool_calls else None,  # type: ignore[arg-type]
            metadata=to_json(event.metadata),  # type: ignore[arg-type]  # JSON text in the column
        )
        if event.tool_calls or event.metadata is not None
        else event._replace(tool_calls=None)  # type: ignore[arg-type]  # the column is NULL for none
        for event in events
    ]
    return [put_column(column) for column in zip(*rows, strict=True)]


def to_event(row: Sequence[Any]) -> Event:
    """A row of the table of events."""
    event = Event._make(got_row(row))
    tools = tuple(from_json(event.tool_calls) or ())
    return event._replace(tool_calls=tools, metadata=from_json(event.metadata))


def insert_gates(connection: Connection, rows: Sequence[GateRow]) -> None:
    """Append to the audit trail what it does not have."""
    values = [row._replace(metadata=to_json(row.metadata)) for row in rows]  # type: ignore[arg-type]
    connection.execute(_INSERT_GATES, [put_column(column) for column in zip(*values, strict=True)])
