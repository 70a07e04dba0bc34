"""Events and decisions as rows, and the roll-ups that are written with them."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import date
from functools import lru_cache
from typing import Any, NamedTuple

from paygent.core.events import Event
from paygent.core.windows import from_us
from paygent.ledger import GateRow
from paygent_django.ledger import _news
from paygent_django.ledger._accounts import Accounts
from paygent_django.ledger._sql import Sql, chunks
from paygent_django.models import DailyGate, DailyUsage, EndUser, GateEvent, UsageEvent, UserUsage
from paygent_django.models.fields import escape, from_json, to_json, unescape
from paygent_django.models.usage import CORRECTION, TAG_LENGTH

_IDS_PER_QUERY = 500
_DAY_US = 86_400_000_000
TAG = "feature"  # the key of an event's metadata by which usage is also added up
CORRECTS = "paygent_corrects"  # the key under which a correction names its event

_TEXTS = frozenset(
    {
        "session", "session_id", "provider", "operation", "model", "request_model", "response_model",
        "source", "rate_source", "description",
    }
)  # fmt: skip
# The columns that hold the fields of an Event, in their order; the first two go by other names.
_SHARED = Event._fields[2:]
_COLUMNS = (
    "project_id",
    "user_id",
    "plan_id",
    "event_id",
    "received_us",
    "cost_nusd",
    "tag",
    "corrects",
    *_SHARED,
)
GATE_SHARED = GateRow._fields[2:]
_GATE_COLUMNS = ("project_id", "user_id", "gate_id", *GATE_SHARED)
MEASURES = ("calls", "input_tokens", "output_tokens", "cost_nusd", "estimated_nusd")


class Counted(NamedTuple):
    """What a roll-up needs to know of one event."""

    user_pk: int
    plan_id: int | None
    timestamp_us: int
    model: str
    tag: str
    input_tokens: int
    output_tokens: int
    cost_nusd: int
    estimated: bool
    corrects: bool = False

    @property
    def measures(self) -> tuple[int, int, int, int, int]:
        """In the order of ``MEASURES``; a correction is no call."""
        estimated_nusd = self.cost_nusd if self.estimated else 0
        return (int(not self.corrects), self.input_tokens, self.output_tokens, self.cost_nusd, estimated_nusd)


def tag_of(event: Event) -> str:
    """The feature that a call was made for, as its metadata says."""
    tag = (event.metadata or {}).get(TAG)
    return tag.replace("\0", " ").replace("\u2400", " ")[:TAG_LENGTH] if isinstance(tag, str) else ""


# -- writing ----------------------------------------------------------------------------------------------


def insert(accounts: Accounts, events: Sequence[Event], shard: int) -> None:
    """
    Append *events*, none of which is there yet, and add them to the roll-ups.

    The rows of their users are locked, so that nobody appends the same ones meanwhile.
    """
    counted = [_counted(accounts, event) for event in events]
    row = _row_of(accounts)
    accounts.sql.insert(UsageEvent, _COLUMNS, list(map(row, events, counted)))
    roll_up(accounts.sql, accounts.project_pk, counted, shard)
    _news.of_users(accounts.sql, accounts.project_pk, {one.user_pk for one in counted})


# What the server decides when an event first arrives is no part of its content.
_DECIDED = ("period", "session")


class Posted(NamedTuple):
    """What became of a batch: how many were new, how many known, and (id, field) of those that differ."""

    accepted: int
    duplicates: int
    conflicts: list[tuple[str, str]]


def parted(
    accounts: Accounts, batches: Sequence[Sequence[Event]], known_ids: Collection[str]
) -> tuple[list[Event], list[Posted]]:
    """
    The events of *batches* that are to be appended, and what becomes of each batch, one after the other.

    An id that is known with other content, from before or from an earlier one of them, is a conflict.
    """
    stored = _stored_events(accounts, [e.id for batch in batches for e in batch if e.id in known_ids])
    seen: dict[str, Event] = dict(stored)
    told: list[Posted] = []
    for batch in batches:
        accepted, duplicates = 0, 0
        conflicts: list[tuple[str, str]] = []
        for event in batch:
            other = seen.get(event.id)
            if other is None:
                seen[event.id] = event
                accepted += 1
            elif (field := _difference(event, other)) is None:
                duplicates += 1
            else:
                conflicts.append((event.id, field))
        told.append(Posted(accepted, duplicates, conflicts))
    return [event for event_id, event in seen.items() if event_id not in stored], told


def _difference(event: Event, other: Event) -> str | None:
    return next((name for name in Event._fields if _differs(name, event, other)), None)


def _differs(name: str, event: Event, other: Event) -> bool:
    if name in _DECIDED:
        return False
    one, two = getattr(event, name), getattr(other, name)
    if name == "tool_calls":
        return tuple(one) != tuple(two)
    return to_json(one) != to_json(two) if name == "metadata" else bool(one != two)


def _stored_events(accounts: Accounts, ids: Sequence[str]) -> dict[str, Event]:
    sql = accounts.sql
    columns = ", ".join(f"e.{sql.quoted(name)}" for name in _SHARED)
    found: dict[str, Event] = {}
    for chunk in chunks([escape(one) for one in ids], _IDS_PER_QUERY):
        named, values = sql.of_project(UsageEvent, "event_id", accounts.project_pk, chunk, "e")
        query = (
            f"SELECT e.event_id, u.external_user_id, {columns} FROM {sql.table(UsageEvent)} e "  # noqa: S608
            f"JOIN {sql.table(EndUser)} u ON u.id = e.user_id WHERE {named}"
        )
        rows = sql.rows(query, values)
        found.update((event.id, event) for event in map(to_event, rows))
    return found


def _counted(accounts: Accounts, event: Event) -> Counted:
    held = accounts.held(event.user_id)
    assert held is not None, "the users of events are locked before"
    return Counted(
        held.pk, accounts.bound_plan_id(held), event.timestamp_us, escape(event.model or ""), tag_of(event),
        event.input_tokens, event.output_tokens, event.cost_nusd, bool(event.estimated),
        event.source == CORRECTION,
    )  # fmt: skip


def _row_of(accounts: Accounts) -> Callable[[Event, Counted], tuple[Any, ...]]:
    project_pk, now_us = accounts.project_pk, accounts.now_us

    def row(event: Event, counted: Counted) -> tuple[Any, ...]:
        e = event
        corrects = (e.metadata or {}).get(CORRECTS) if counted.corrects else None
        provider, operation, model, request_model, response_model, source, rate_source = _names(
            e.provider, e.operation, e.model, e.request_model, e.response_model, e.source, e.rate_source
        )
        return (
            project_pk, counted.user_pk, counted.plan_id, escape(e.id), now_us, counted.cost_nusd,
            counted.tag, corrects, e.timestamp_us, e.period, escape(e.session), _text(e.session_id),
            provider, operation, model, request_model, response_model, e.input_tokens, e.output_tokens,
            e.cache_read_input_tokens, e.cache_write_input_tokens, e.reasoning_output_tokens,
            e.cost_tokens_nusd, e.cost_tools_nusd, to_json(list(e.tool_calls)) if e.tool_calls else None,
            to_json(e.metadata), source, bool(e.estimated), bool(e.cost_explicit), rate_source,
            _text(e.description),
        )  # fmt: skip

    return row


@lru_cache(maxsize=1024)
def _names(*names: str | None) -> list[str | None]:
    """Names of which an app has few, as they are stored."""
    return [_text(name) for name in names]


def _text(text: str | None) -> str | None:
    return None if text is None else escape(text)


def known(sql: Sql, model: Any, column: str, project_pk: int, ids: Sequence[str]) -> set[str]:
    """Those of *ids* that the table of *model* has in its *column*."""
    found: set[str] = set()
    for chunk in chunks([escape(one) for one in ids], _IDS_PER_QUERY):
        named, values = sql.of_project(model, column, project_pk, chunk)
        query = f"SELECT {column} FROM {sql.table(model)} WHERE {named}"  # noqa: S608
        found.update(unescape(row[0]) for row in sql.rows(query, values))
    return found


def record_gates(accounts: Accounts, rows: Sequence[GateRow], shard: int) -> None:
    """Append the decisions that are not there yet, and count them by day."""
    sql, project_pk = accounts.sql, accounts.project_pk
    distinct = {row.id: row for row in rows}
    there = known(sql, GateEvent, "gate_id", project_pk, list(distinct))
    new = [row for row in distinct.values() if row.id not in there]
    if not new:
        return
    values = [(project_pk, accounts.pk(row.user_id), escape(row.id), *_gate_values(row)) for row in new]
    sql.insert(GateEvent, _GATE_COLUMNS, values)
    roll_up_gates(
        sql,
        project_pk,
        ((r.timestamp_us, r.status, r.gate_reason or "", bool(r.blocked), r.count) for r in new),
        shard,
    )
    _news.of_gates(sql, project_pk, [escape(row.id) for row in new])


def _gate_values(row: GateRow) -> list[Any]:
    values: list[Any] = []
    for name in GATE_SHARED:
        value = getattr(row, name)
        if name == "metadata":
            value = to_json(value)
        elif name == "blocked":
            value = bool(value)
        values.append(escape(value) if isinstance(value, str) else value)
    return values


# -- roll-ups ---------------------------------------------------------------------------------------------


def roll_up(sql: Sql, project_pk: int, events: Iterable[Counted], shard: int) -> None:
    """Add *events* to the sums by day and by month, of users and of the project; rows in sorted order."""
    users: dict[tuple[int, int, date], list[int]] = defaultdict(lambda: [0] * len(MEASURES))
    days: dict[tuple[date, int | None, str, str], list[int]] = defaultdict(lambda: [0] * len(MEASURES))
    for event in events:
        day = _day(event.timestamp_us // _DAY_US)
        measures = event.measures
        for sums in (
            users[event.user_pk, UserUsage.DAY, day],
            users[event.user_pk, UserUsage.MONTH, day.replace(day=1)],
            days[day, event.plan_id, event.model, event.tag],
        ):
            for index, amount in enumerate(measures):
                sums[index] += amount
    adapt = sql.connection.ops.adapt_datefield_value
    sql.add(
        UserUsage, ("project_id", "user_id", "grain", "starts", *MEASURES), ("user_id", "grain", "starts"),
        MEASURES,
        [(project_pk, pk, grain, adapt(day), *sums) for (pk, grain, day), sums in sorted(users.items())],
    )  # fmt: skip
    rows = sorted(
        (str(day), digest(plan_id, model, tag), plan_id, model, tag, sums)
        for (day, plan_id, model, tag), sums in days.items()
    )
    sql.add(
        DailyUsage, ("project_id", "day", "key", "plan_id", "model", "tag", "shard", *MEASURES),
        ("project_id", "day", "key", "shard"), MEASURES,
        [(project_pk, *names, shard, *sums) for *names, sums in rows],
    )  # fmt: skip


def roll_up_gates(
    sql: Sql, project_pk: int, rows: Iterable[tuple[int, str, str, bool, int]], shard: int
) -> None:
    """Add decisions (timestamp, status, reason, blocked, count) to the sums by day."""
    days: dict[tuple[str, str, str, bool], int] = defaultdict(int)
    for timestamp_us, status, reason, blocked, count in rows:
        days[str(_day(timestamp_us // _DAY_US)), escape(status), escape(reason), blocked] += count
    sql.add(
        DailyGate, ("project_id", "day", "key", "status", "gate_reason", "blocked", "shard", "count"),
        ("project_id", "day", "key", "shard"), ("count",),
        [
            (project_pk, day, digest(status, reason, blocked), status, reason, blocked, shard, count)
            for (day, status, reason, blocked), count in sorted(days.items())
        ],
    )  # fmt: skip


@lru_cache(maxsize=8192)
def total_names(scope: str, window: str) -> tuple[str, str, str]:
    """A total in its user's rows: its short name, window and scope, as they are stored."""
    return digest(scope, window), escape(window), escape(scope)


def digest(*parts: object) -> str:
    """A short name for *parts*, which may be longer than an index takes."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:32]


@lru_cache(maxsize=1024)
def _day(days: int) -> date:
    return from_us(days * _DAY_US).date()


# -- reading ----------------------------------------------------------------------------------------------

EVENT_COLUMNS = _SHARED


def to_event(row: Sequence[Any]) -> Event:
    """An event from its id, its user's name and ``EVENT_COLUMNS``."""
    values = dict(zip(_SHARED, row[2:], strict=True))
    for name in _TEXTS:
        values[name] = None if values[name] is None else unescape(values[name])
    values["tool_calls"] = tuple(from_json(values["tool_calls"]) or ())
    values["metadata"] = from_json(values["metadata"])
    values["estimated"], values["cost_explicit"] = int(values["estimated"]), int(values["cost_explicit"])
    return Event(id=unescape(row[0]), user_id=unescape(row[1]), **values)


def to_gate(row: Sequence[Any]) -> GateRow:
    """A decision from its id, its user's name and ``GATE_SHARED``."""
    plain = [unescape(value) if isinstance(value, str) else value for value in row]
    gate = GateRow._make(plain)
    return gate._replace(metadata=from_json(gate.metadata), blocked=int(gate.blocked))  # type: ignore[arg-type]


def newest(
    sql: Sql,
    model: Any,
    id_column: str,
    names: Collection[str],
    project_pk: int,
    user_id: str | None,
    limit: int,
) -> list[tuple[Any, ...]]:
    """The newest rows of a project or one of its users: id, user's name and the columns *names*."""
    columns = ", ".join(f"e.{sql.quoted(name)}" for name in names)
    whose = "e.project_id = %s"
    values: list[Any] = [project_pk]
    if user_id is not None:
        whose, values = "u.project_id = %s AND u.external_user_id = %s", [project_pk, escape(user_id)]
    query = (
        f"SELECT e.{id_column}, u.external_user_id, {columns} FROM {sql.table(model)} e "  # noqa: S608
        f"JOIN {sql.table(EndUser)} u ON u.id = e.user_id WHERE {whose} "
        f"ORDER BY e.timestamp_us DESC, e.{id_column} DESC LIMIT %s"
    )
    return sql.rows(query, (*values, limit))
