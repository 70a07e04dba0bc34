"""The rows of the SQLite ledger: what is read and written within one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from itertools import chain
from typing import Any

from paygent.core.events import Event
from paygent.ledger import Account, Bucket, PlanRow
from paygent.ledgers._rows import LeaseRow, SessionRow
from paygent.ledgers._values import amounts_from, amounts_to, from_json, to_json

_IDS_PER_QUERY = 500
_ROWS_PER_INSERT = 32  # times 25 columns stays below the 999 parameters of the oldest SQLite
EVENT_COLUMNS = ", ".join(Event._fields)
_EVENT_MARKS = ", ".join("?" * len(Event._fields))


def to_event(row: tuple[Any, ...]) -> Event:
    event = Event._make(row)
    tools = tuple(from_json(event.tool_calls) or ())
    return event._replace(tool_calls=tools, metadata=from_json(event.metadata))


def _event_row(event: Event) -> tuple[Any, ...]:
    if not event.tool_calls and event.metadata is None:
        return event._replace(tool_calls=None)  # type: ignore[arg-type]  # the column is NULL for none
    return event._replace(
        tool_calls=to_json(list(event.tool_calls)),  # type: ignore[arg-type]  # JSON text in the column
        metadata=to_json(event.metadata),  # type: ignore[arg-type]
    )


@cache
def _insert(rows: int) -> str:
    return f"INSERT INTO events ({EVENT_COLUMNS}) VALUES {', '.join([f'({_EVENT_MARKS})'] * rows)}"  # noqa: S608  # constants


class SqliteRows:
    """The rows of one open transaction."""

    def __init__(self, connection: sqlite3.Connection, now_us: int) -> None:
        self.execute = connection.execute
        self.execute_many = connection.executemany
        self._now_us = now_us

    def now_us(self) -> int:
        return self._now_us

    def account(self, user_id: str) -> Account | None:
        sql = (
            "SELECT plan, own_config, period_start_us, period_end_us, sdk_enabled, contended_us "
            "FROM accounts WHERE user_id = ?"
        )
        row = self.execute(sql, (user_id,)).fetchone()
        if row is None:
            return None
        period = None if row[2] is None else (row[2], row[3])
        return Account(user_id, row[0], row[1], period, bool(row[4]), row[5])

    def put_account(self, account: Account) -> None:
        start_us, end_us = account.period or (None, None)
        self.execute(
            "INSERT OR REPLACE INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                account.user_id,
                account.plan,
                account.own_config,
                start_us,
                end_us,
                int(account.sdk_enabled),
                account.contended_us,
            ),
        )

    def plan(self, name: str) -> PlanRow | None:
        row = self.execute("SELECT name, key, config FROM plans WHERE name = ?", (name,)).fetchone()
        return None if row is None else PlanRow._make(row)

    def session(self, user_id: str, own_id: str) -> SessionRow | None:
        sql = "SELECT session_id, started_us, ends_us FROM sessions WHERE user_id = ? AND own_id = ?"
        row = self.execute(sql, (user_id, own_id)).fetchone()
        return None if row is None else SessionRow._make(row)

    def put_session(self, user_id: str, own_id: str, session: SessionRow) -> None:
        self.execute("INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?)", (user_id, own_id, *session))

    def sweep(self, leases_before_us: int, sessions_before_us: int) -> None:
        self.execute("DELETE FROM leases WHERE expires_us <= ?", (leases_before_us,))
        self.execute("DELETE FROM sessions WHERE ends_us <= ?", (sessions_before_us,))

    def insert_events(self, events: Sequence[Event]) -> Sequence[Event]:
        known: set[str] = set()
        for start in range(0, len(events), _IDS_PER_QUERY):
            ids = [event.id for event in events[start : start + _IDS_PER_QUERY]]
            marks = ",".join("?" * len(ids))
            known.update(row[0] for row in self.execute(f"SELECT id FROM events WHERE id IN ({marks})", ids))  # noqa: S608
        new = [event for event in events if event.id not in known] if known else events
        # Many rows a statement: the interpreter's lock is let go and fought for once per statement.
        for start in range(0, len(new), _ROWS_PER_INSERT):
            rows = [_event_row(event) for event in new[start : start + _ROWS_PER_INSERT]]
            self.execute(_insert(len(rows)), list(chain.from_iterable(rows)))
        return new

    def add(self, deltas: Mapping[tuple[str, str, str], int]) -> None:
        self.execute_many(
            "INSERT INTO totals VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET amount = amount + excluded.amount",
            [(*key, amount) for key, amount in deltas.items()],
        )

    def totals(self, user_id: str, windows: Collection[str]) -> dict[Bucket, int]:
        marks = ",".join("?" * len(windows))
        sql = f"SELECT scope, window, amount FROM totals WHERE user_id = ? AND window IN ({marks})"  # noqa: S608
        return {(scope, window): amount for scope, window, amount in self.execute(sql, (user_id, *windows))}

    def leases(self, user_id: str) -> list[LeaseRow]:
        sql = "SELECT lease_id, seq, expires_us, amounts, denied, busy FROM leases WHERE user_id = ?"
        return [
            LeaseRow(row[0], row[1], row[2], amounts_from(row[3]), row[4], bool(row[5]))
            for row in self.execute(sql, (user_id,))
        ]

    def put_lease(self, user_id: str, row: LeaseRow) -> None:
        amounts = amounts_to(row.amounts)
        self.execute(
            "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?, ?, ?)",
            (user_id, row.lease_id, row.seq, row.expires_us, amounts, row.denied, int(row.busy)),
        )

    def drop_lease(self, user_id: str, lease_id: str) -> None:
        self.execute("DELETE FROM leases WHERE user_id = ? AND lease_id = ?", (user_id, lease_id))
