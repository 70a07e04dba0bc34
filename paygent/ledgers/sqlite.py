"""A ledger in one SQLite file, shared by every process of a machine."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from paygent._forking import no_fork, stop_at_forks
from paygent.core.events import Event
from paygent.ledger import Account, Bucket, GateRow, Job, LeaseReply, LeaseRequest, LedgerError
from paygent.ledgers._lock import FileLock
from paygent.ledgers._rows import Sweeper, apply_leases, plan_key, post_events
from paygent.ledgers._schema import SCHEMA, SCHEMA_VERSION
from paygent.ledgers._sqlite_insight import SqliteInsight
from paygent.ledgers._sqlite_rows import EVENT_COLUMNS, SqliteRows, to_event
from paygent.ledgers._values import from_json, to_json
from paygent.ledgers.filesystems import network_filesystem

log = logging.getLogger("paygent")

# Another program may hold the file for a moment; processes of ours queue on the lock file instead.
BUSY_TIMEOUT_S = 0.2
_GATE_COLUMNS = ", ".join(GateRow._fields)
_GATE_MARKS = ", ".join("?" * len(GateRow._fields))
_BROKEN = ("malformed", "not a database", "file is encrypted", "corrupt")


class SqliteLedger(SqliteInsight):
    """
    SQLite in WAL mode, one connection, opened on first use.

    Durable against the death of the process. A file that is corrupt is set aside under a name that the
    log tells, and a new one is begun; a file that was moved or removed is begun anew.
    """

    def __init__(self, path: Path, now_us: Callable[[], int] | None = None) -> None:
        self.path = path
        self._now_us = now_us or (lambda: time.time_ns() // 1000)
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None  # device and inode of what the connection has open
        self._lock = FileLock(path.with_name(path.name + ".lock"))
        self._use = threading.Lock()  # held while SQLite is at work, so that a fork can wait for its end
        self._sweeper = Sweeper()
        self._own_plans: dict[str, str] = {}
        self._forked_in_use = False
        with no_fork:  # which goes through them
            _ledgers.add(self)

    @property
    def journal_dir(self) -> Path | None:
        """Beside the file, so that the processes that share it also recover each other's journals."""
        return self.path.with_name(self.path.name + ".journals")

    def lease(self, requests: Sequence[LeaseRequest]) -> list[LeaseReply]:
        with self._transaction() as rows:
            self._sweeper.sweep(rows)
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
        self._own_plans[name] = config
        with self._transaction() as rows:
            _put_plan(rows, name, config)

    def plans(self) -> dict[str, str]:
        return dict(self._query("SELECT name, config FROM plans ORDER BY name"))

    def put_account(self, user_id: str, changes: Mapping[str, Any]) -> None:
        with self._transaction() as rows:
            account = rows.account(user_id) or Account(user_id)
            rows.put_account(account._replace(**changes))

    def record_gates(self, rows: Sequence[GateRow]) -> None:
        sql = f"INSERT OR IGNORE INTO gate_events ({_GATE_COLUMNS}) VALUES ({_GATE_MARKS})"  # noqa: S608
        values = [row._replace(metadata=to_json(row.metadata)) for row in rows]  # type: ignore[arg-type]
        with self._transaction() as transaction:
            transaction.execute_many(sql, values)

    def events(self, user_id: str | None = None, *, limit: int = 1000) -> list[Event]:
        return [to_event(row) for row in self._newest(EVENT_COLUMNS, "events", user_id, limit)]

    def gate_events(self, user_id: str | None = None, *, limit: int = 100) -> list[GateRow]:
        rows = map(GateRow._make, self._newest(_GATE_COLUMNS, "gate_events", user_id, limit))
        return [row._replace(metadata=from_json(row.metadata)) for row in rows]

    def put_job(self, job: Job) -> None:
        sql = "INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?, ?)"
        values = (job.provider, job.job_id, job.user_id, job.session_id, job.model, to_json(job.metadata))
        with self._transaction() as rows:
            rows.execute(sql, values)

    def link_job(self, provider: str, job_id: str, alias: str) -> None:
        with self._transaction() as rows:
            rows.execute("INSERT OR REPLACE INTO job_aliases VALUES (?, ?, ?)", (provider, alias, job_id))

    def job(self, provider: str, name: str) -> Job | None:
        sql = (
            "SELECT job_id, user_id, session_id, provider, model, metadata FROM jobs WHERE provider = ? AND "
            "job_id IN (?, (SELECT job_id FROM job_aliases WHERE provider = ? AND alias = ?))"
        )
        for row in self._query(sql, (provider, name) * 2):
            return Job._make((*row[:5], from_json(row[5])))
        return None

    def beside(self) -> SqliteLedger:
        """A ledger on the same file with a connection of its own: there, readers hold up nobody."""
        return SqliteLedger(self.path, self._now_us)

    def pulse(self) -> int:
        """The last turn at the lock file."""
        return self._lock.pulse()

    def forget_after_fork(self) -> None:
        """Nothing of the parent's is left here: see :func:`_before_fork`."""

    def close(self) -> None:
        with self._use:
            self._disconnect()
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
            try:
                if self._connection is None or self._moved:
                    with self._lock, self._use:
                        self._open()
                with self._use:
                    # between the two a fork may have closed it; the file is there by then
                    return self._open().execute(sql, values).fetchall()
            except sqlite3.DatabaseError as error:
                if _is_broken(error):
                    with self._lock, self._use:
                        self._set_aside(error)
                raise

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[SqliteRows]:
        with self._errors(), self._lock, self._use:
            try:
                connection = self._open()
                connection.execute("BEGIN IMMEDIATE")
                yield SqliteRows(connection, self._now_us())
                connection.execute("COMMIT")
            except BaseException as error:
                if isinstance(error, sqlite3.DatabaseError) and _is_broken(error):
                    self._set_aside(error)
                elif self._connection is not None and self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.DataError):
            raise  # a fault of ours: another try would end the same way
        except (sqlite3.Error, OSError) as error:
            raise LedgerError(f"{self.path}: {error}") from error

    def _open(self) -> sqlite3.Connection:
        """The connection (the locks are held); a file that is not the one it has open is opened anew."""
        if self._forked_in_use:
            raise LedgerError(f"{self.path} was in use when this process was forked, and stays closed to it")
        if self._connection is not None and not self._moved:
            return self._connection
        self._disconnect()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kind = network_filesystem(self.path.parent)
        if kind is not None:
            raise LedgerError(
                f"{self.path} is on a network file system ({kind}), where SQLite's locks do not hold: "
                "choose a local path, or a ledger that is made for several machines"
            )
        connection = sqlite3.connect(
            self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            self._file = _file_at(self.path)
            if _prepare(connection):
                self._put_own_plans(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    @property
    def _moved(self) -> bool:
        """Whether the file that is open is no longer the one at the path: set aside, removed, restored."""
        return _file_at(self.path) != self._file

    def _put_own_plans(self, connection: sqlite3.Connection) -> None:
        """A file begun anew must not make the plans of this process unlimited."""
        rows = SqliteRows(connection, self._now_us())
        for name, config in self._own_plans.items():
            _put_plan(rows, name, config)

    def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _set_aside(self, error: Exception) -> None:
        """Keep a corrupt file under another name (the locks are held): a person may still save it."""
        self._disconnect()
        if self._moved:
            return  # another process did so already
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        aside = self.path.with_name(f"{self.path.name}.corrupt-{stamp}-{os.getpid()}")
        for tail in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                self.path.with_name(self.path.name + tail).rename(aside.with_name(aside.name + tail))
        log.error(
            "%s is not a readable database (%s); set aside as %s. A new one is begun with the plans of this "
            "process; usage and plans of users start anew",
            self.path,
            error,
            aside,
        )


def _prepare(connection: sqlite3.Connection) -> bool:
    """
    Bring a fresh file to the schema; WAL lets readers go on while another process writes.

    Returns:
        Whether the file was fresh.

    Raises:
        sqlite3.OperationalError: A newer version wrote the file; it is not touched.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise sqlite3.OperationalError(f"the file was written by a newer version (schema {version})")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    if version == SCHEMA_VERSION:
        return False
    connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
    return True


def _put_plan(rows: SqliteRows, name: str, config: str) -> None:
    rows.execute(
        "INSERT INTO plans VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET "
        "key = excluded.key, config = excluded.config WHERE key <> excluded.key",
        (name, plan_key(config), config),
    )


def _file_at(path: Path) -> tuple[int, int] | None:
    try:
        stat = os.stat(path)  # noqa: PTH116  # half the time of Path.stat(), at each transaction
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def _is_broken(error: sqlite3.DatabaseError) -> bool:
    return any(word in str(error) for word in _BROKEN)


# -- forks ------------------------------------------------------------------------------------------------

_ledgers: weakref.WeakSet[SqliteLedger] = weakref.WeakSet()
_FORK_WAIT_S = 5.0
_stopped: list[SqliteLedger] = []  # those that the fork under way has stopped: the same are let go


def _before_fork() -> None:
    """
    Close every connection before a fork, and let none open until it is over.

    SQLite keeps the locks of a process in its memory. A child that inherits a connection inherits the belief
    that it holds those locks, for every connection it opens itself: it would wait for its parent's writes for
    ever, and would not be seen by others that clear the log away.
    """
    _stopped.extend(_ledgers)
    for ledger in _stopped:
        if ledger._use.acquire(timeout=_FORK_WAIT_S):
            ledger._disconnect()
        else:
            ledger._forked_in_use = True


def _after_fork_in_parent() -> None:
    for ledger in _stopped:
        if ledger._forked_in_use:
            ledger._forked_in_use = False
        else:
            ledger._use.release()
    _stopped.clear()


def _after_fork_in_child() -> None:
    for ledger in _stopped:
        ledger._use = threading.Lock()
        ledger._lock.close()
    _stopped.clear()


stop_at_forks(_before_fork, _after_fork_in_parent, _after_fork_in_child)
