"""A ledger in one SQLite file, shared by every process of a machine."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from paygent.core.events import Event
from paygent.ledger import Account, Bucket, GateRow, Job, LedgerError, LeaseReply, LeaseRequest, PlanRow
from paygent.ledgers._lock import FileLock
from paygent.ledgers._rows import LeaseRow, apply_leases, plan_key, post_events
from paygent.ledgers._schema import SCHEMA, SCHEMA_VERSION

log = logging.getLogger("paygent")

# Another program may hold the file for a moment; processes of ours queue on the lock file instead.
BUSY_TIMEOUT_S = 0.2
_IDS_PER_QUERY = 500
_parents: list[object] = []
_EVENT_COLUMNS = ", ".join(Event._fields)
_EVENT_MARKS = ", ".join("?" * len(Event._fields))
_GATE_COLUMNS = ", ".join(GateRow._fields)
_GATE_MARKS = ", ".join("?" * len(GateRow._fields))
_BROKEN = ("malformed", "not a database", "file is encrypted", "corrupt")


class SqliteLedger:
    """
    SQLite in WAL mode, one connection, opened on first use.

    Durable against the death of the process. A file that is corrupt is set aside under a name that the
    log tells, and a new one is begun.
    """

    def __init__(self, path: Path, now_us: Callable[[], int] | None = None) -> None:
        self.path = path
        self._now_us = now_us or (lambda: time.time_ns() // 1000)
        self._connection: sqlite3.Connection | None = None
        self._lock = FileLock(path.with_name(path.name + ".lock"))

    @property
    def journal_dir(self) -> Path | None:
        """Beside the file, so that the processes that share it also recover each other's journals."""
        return self.path.with_name(self.path.name + ".journals")

    def lease(self, requests: Sequence[LeaseRequest]) -> list[LeaseReply]:
        with self._transaction() as rows:
            return apply_leases(rows, requests)

    def settle(self, events: Sequence[Event], close: Sequence[str] = ()) -> int:
        with self._transaction() as rows:
            new = post_events(rows, events)
            rows.execute_many("DELETE FROM leases WHERE lease_id = ?", [(lease_id,) for lease_id in close])
            return new

    def totals(self, user_id: str) -> dict[Bucket, int]:
        sql = "SELECT scope, window, amount FROM totals WHERE user_id = ?"
        return {(scope, window): amount for scope, window, amount in self._query(sql, (user_id,))}

    def put_plan(self, name: str, config: str) -> None:
        with self._transaction() as rows:
            rows.execute(
                "INSERT INTO plans VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET "
                "key = excluded.key, config = excluded.config WHERE key <> excluded.key",
                (name, plan_key(config), config),
            )

    def plans(self) -> dict[str, str]:
        return dict(self._query("SELECT name, config FROM plans ORDER BY name"))

    def put_account(self, user_id: str, changes: Mapping[str, Any]) -> None:
        with self._transaction() as rows:
            account = rows.account(user_id) or Account(user_id)
            rows.put_account(account._replace(**changes))

    def record_gates(self, rows: Sequence[GateRow]) -> None:
        sql = f"INSERT OR IGNORE INTO gate_events ({_GATE_COLUMNS}) VALUES ({_GATE_MARKS})"  # noqa: S608
        values = [row._replace(metadata=_json(row.metadata)) for row in rows]  # type: ignore[arg-type]
        with self._transaction() as transaction:
            transaction.execute_many(sql, values)

    def events(self, user_id: str | None = None, *, limit: int = 1000) -> list[Event]:
        return [_event(row) for row in self._newest(_EVENT_COLUMNS, "events", user_id, limit)]

    def gate_events(self, user_id: str | None = None, *, limit: int = 100) -> list[GateRow]:
        rows = map(GateRow._make, self._newest(_GATE_COLUMNS, "gate_events", user_id, limit))
        return [row._replace(metadata=_from_json(row.metadata)) for row in rows]

    def put_job(self, job: Job) -> None:
        sql = "INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?, ?)"
        values = (job.provider, job.job_id, job.user_id, job.session_id, job.model, _json(job.metadata))
        with self._transaction() as rows:
            rows.execute(sql, values)

    def link_job(self, provider: str, job_id: str, alias: str) -> None:
        with self._transaction() as rows:
            rows.execute("INSERT OR REPLACE INTO job_aliases VALUES (?, ?, ?)", (provider, alias, job_id))

    def job(self, provider: str, name: str) -> Job | None:
        sql = (
            "SELECT job_id, user_id, session_id, provider, model, metadata FROM jobs WHERE provider = ?1 AND "
            "job_id IN (?2, (SELECT job_id FROM job_aliases WHERE provider = ?1 AND alias = ?2))"
        )
        for row in self._query(sql, (provider, name)):
            return Job(*row[:5], _from_json(row[5]))
        return None

    def forget_after_fork(self) -> None:
        # Closing a connection that was opened before the fork would free the parent's locks on the file.
        _parents.append(self._connection)
        self._connection = None
        self._lock.close()

    def close(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()
        self._lock.close()

    # -- the file -----------------------------------------------------------------------------------------

    def _newest(self, columns: str, table: str, user_id: str | None, limit: int) -> list[tuple[Any, ...]]:
        order = "ORDER BY timestamp_us DESC, id DESC LIMIT ?"
        if user_id is None:
            return self._query(f"SELECT {columns} FROM {table} {order}", (limit,))  # noqa: S608  # constants
        where = "WHERE user_id = ?"
        return self._query(f"SELECT {columns} FROM {table} {where} {order}", (user_id, limit))  # noqa: S608

    def _query(self, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._errors():
            if self._connection is None:
                with self._lock:
                    self._open()
            return self._open().execute(sql, values).fetchall()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[_SqliteRows]:
        with self._errors(), self._lock:
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield _SqliteRows(connection, self._now_us())
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if isinstance(error, sqlite3.DatabaseError) and any(word in str(error) for word in _BROKEN):
                self._set_aside(error)
            raise LedgerError(f"{self.path}: {error}") from error

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(
                self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            try:
                _prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _set_aside(self, error: Exception) -> None:
        """Keep a corrupt file under another name: it may hold what a person can still save."""
        self.close()
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(self._now_us() / 1e6))
        aside = self.path.with_name(f"{self.path.name}.corrupt-{stamp}-{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):
            self.path.rename(aside)
        for tail in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                self.path.with_name(self.path.name + tail).rename(aside.with_name(aside.name + tail))
        log.error("%s is not a readable database (%s); set aside as %s", self.path, error, aside)


def _prepare(connection: sqlite3.Connection) -> None:
    """Bring a fresh or older file to the schema; WAL lets readers go on while another process writes."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise sqlite3.OperationalError(f"the file was written by a newer version (schema {version})")
    if version < SCHEMA_VERSION:
        connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value)


def _from_json(value: Any) -> Any:
    return None if value is None else json.loads(value)


def _event(row: tuple[Any, ...]) -> Event:
    event = Event._make(row)
    return event._replace(tool_calls=_from_json(event.tool_calls) or (), metadata=_from_json(event.metadata))


def _event_row(event: Event) -> tuple[Any, ...]:
    if not event.tool_calls and event.metadata is None:
        return event._replace(tool_calls=None)  # type: ignore[arg-type]  # the column is NULL for none
    return event._replace(
        tool_calls=_json(list(event.tool_calls)),  # type: ignore[arg-type]  # JSON text in the column
        metadata=_json(event.metadata),  # type: ignore[arg-type]
    )


class _SqliteRows:
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

    def session(self, user_id: str, own_id: str) -> tuple[str, int] | None:
        sql = "SELECT session_id, started_us FROM sessions WHERE user_id = ? AND own_id = ?"
        row: tuple[str, int] | None = self.execute(sql, (user_id, own_id)).fetchone()
        return row

    def put_session(self, user_id: str, own_id: str, session_id: str, started_us: int) -> None:
        sql = "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?)"
        self.execute(sql, (user_id, own_id, session_id, started_us))

    def insert_events(self, events: Sequence[Event]) -> Sequence[Event]:
        known: set[str] = set()
        for start in range(0, len(events), _IDS_PER_QUERY):
            ids = [event.id for event in events[start : start + _IDS_PER_QUERY]]
            marks = ",".join("?" * len(ids))
            known.update(row[0] for row in self.execute(f"SELECT id FROM events WHERE id IN ({marks})", ids))  # noqa: S608
        new = [event for event in events if event.id not in known] if known else events
        sql = f"INSERT INTO events ({_EVENT_COLUMNS}) VALUES ({_EVENT_MARKS})"  # noqa: S608  # constants
        self.execute_many(sql, map(_event_row, new))
        return new

    def add(self, deltas: Mapping[tuple[str, str, str], int]) -> None:
        self.execute_many(
            "INSERT INTO totals VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET amount = amount + excluded.amount",
            [(*key, amount) for key, amount in deltas.items()],
        )

    def totals(self, user_id: str, windows: Collection[str]) -> dict[Bucket, int]:
        marks = ",".join("?" * len(windows))
        sql = f"SELECT scope, window, amount FROM totals WHERE user_id = ? AND window IN ({marks})"  # noqa: S608
        return {(scope, window): amount for scope, window, amount in self.execute(sql, (user_id, *windows))}

    def leases(self, user_id: str) -> list[LeaseRow]:
        sql = "SELECT lease_id, seq, expires_us, amounts, denied, busy FROM leases WHERE user_id = ?"
        return [
            LeaseRow(row[0], row[1], row[2], _amounts(row[3]), row[4], bool(row[5]))
            for row in self.execute(sql, (user_id,))
        ]

    def put_lease(self, user_id: str, row: LeaseRow) -> None:
        amounts = json.dumps([(scope, window, amount) for (scope, window), amount in row.amounts.items()])
        self.execute(
            "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?, ?, ?)",
            (user_id, row.lease_id, row.seq, row.expires_us, amounts, row.denied, int(row.busy)),
        )

    def drop_lease(self, user_id: str, lease_id: str) -> None:
        self.execute("DELETE FROM leases WHERE user_id = ? AND lease_id = ?", (user_id, lease_id))


def _amounts(text: str) -> dict[Bucket, int]:
    return {(scope, window): amount for scope, window, amount in json.loads(text)}
