"""Connections for the ledger: one of its own, or one that it shares with its caller."""

from __future__ import annotations

import contextlib
import copy
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import Error

from paygent._forking import know_the_resolver, no_fork, stop_at_forks
from paygent.ledger import LedgerError
from paygent.ledgers._lock import FileLock
from paygent_django.ledger._pipeline import BOUNDS_TRANSACTIONS, can_pipeline, pipelined
from paygent_django.ledger._planner import BY_KEYS, setting
from paygent_django.ledger._sql import Sql

# On SQLite the ledger waits for a view that has written no longer than its callers wait for the ledger.
FILE_WAIT_S = 0.2
# Elsewhere it waits for users whose rows are locked. Many processes at one account are served in turn, and
# callers lose their patience long before this ends.
ROW_WAIT_S = 3
TRANSACTION_S = ROW_WAIT_S + 1
_FORK_WAIT_S = 5.0
_CONNECT_S = 2


class Source(Protocol):
    """Where the ledger gets its connection from."""

    def transaction(self) -> contextlib.AbstractContextManager[Sql]:
        """Statements within a transaction that ends with the block."""

    def reading(self) -> contextlib.AbstractContextManager[BaseDatabaseWrapper]:
        """A connection to read from."""

    def reconnect(self) -> bool:
        """Drop a connection that may be lost; false where it is not ours to drop."""

    @property
    def journal_place(self) -> str | None:
        """The name of the database for the journals' folder; ``None``: it keeps no journal."""

    def pulse(self) -> int:
        """See :meth:`paygent.ledger.Ledger.pulse`."""

    def close(self) -> None:
        """Give back what is held open."""


class Shared:
    """
    The connection that the calling thread has anyway (a web request to the API, a command), or one *pinned*
    connection for every thread: a ``TestCase`` never commits, so the ledger thread must use the test's own.
    """

    journal_place = None

    def __init__(self, alias: str, pinned: BaseDatabaseWrapper | None = None) -> None:
        self._alias = alias
        self._pinned = pinned
        if pinned is not None:
            pinned.inc_thread_sharing()

    @property
    def _connection(self) -> BaseDatabaseWrapper:
        return self._pinned if self._pinned is not None else connections[self._alias]

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Sql]:
        connection = self._connection
        if can_pipeline(connection):
            with pipelined(connection, BY_KEYS) as sql:
                yield sql
            return
        with self._plain(connection), _sql(connection) as sql:
            yield sql

    def _plain(self, connection: BaseDatabaseWrapper) -> contextlib.AbstractContextManager[Any]:
        if self._pinned is None:
            atomic: contextlib.AbstractContextManager[Any] = transaction.atomic(using=self._alias)
            return atomic
        # savepoints of two threads would cross
        return contextlib.nullcontext() if connection.in_atomic_block else _explicit(connection)

    @contextlib.contextmanager
    def reading(self) -> Iterator[BaseDatabaseWrapper]:
        yield self._connection

    def reconnect(self) -> bool:
        """Whoever owns the connection looks after it; one without a transaction is opened anew."""
        connection = self._connection
        if connection.in_atomic_block:
            return False
        connection.close()
        return True

    def pulse(self) -> int:
        """Nobody queues for it."""
        return 0

    def close(self) -> None:
        """The connection is not the ledger's."""


class Own:
    """
    A copy of the project's connection, outside every request's transaction.

    What is spent stays recorded when a view fails and rolls back. It is closed before a fork, and each
    process opens its own. On SQLite the processes of a machine queue on a lock file (see
    ``paygent.ledgers._lock``).
    """

    def __init__(self, alias: str) -> None:
        self._alias = alias
        _ = connections[alias].vendor  # loads the driver now, not while the first call waits
        self._wrapper: BaseDatabaseWrapper | None = None
        self._use = threading.RLock()
        self._lock: FileLock | None = None
        self._stays_closed = False
        with no_fork:  # which goes through them
            if connections[alias].vendor != "sqlite":
                know_the_resolver()
            _sources.add(self)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Sql]:
        with self._use:
            connection = self._open()
            if can_pipeline(connection):
                with pipelined(connection, _settings(connection)) as sql:
                    yield sql
                return
            with self._lock or contextlib.nullcontext(), _explicit(connection):
                _begin(connection)
                with _sql(connection) as sql:
                    yield sql

    @contextlib.contextmanager
    def reading(self) -> Iterator[BaseDatabaseWrapper]:
        with self._use:
            yield self._open()

    def reconnect(self) -> bool:
        """Close, so that the next use opens a new one."""
        with self._use:
            self._disconnect()
        return True

    def pulse(self) -> int:
        """The last turn at the lock file of SQLite; other databases would have to be asked."""
        lock = self._lock
        return 0 if lock is None else lock.pulse()

    def close(self) -> None:
        """Close; it opens again when it is used."""
        with self._use:
            self._disconnect()
            self._wrapper = None
            if self._lock is not None:
                self._lock.close()

    @property
    def journal_place(self) -> str | None:
        """The file of SQLite, else host, port and name of the database."""
        base = connections[self._alias]
        if base.vendor == "sqlite":
            path = _sqlite_file(base)
            return None if path is None else str(path)
        settings = base.settings_dict
        return "//{HOST}:{PORT}/{NAME}".format(
            **{key: settings.get(key) or "" for key in ("HOST", "PORT", "NAME")}
        )

    def _open(self) -> BaseDatabaseWrapper:
        if self._stays_closed or (_all_stay_closed and connections[self._alias].vendor == "sqlite"):
            raise LedgerError("the database was in use when this process was forked, and stays closed to it")
        if self._wrapper is None:
            base = connections[self._alias]
            self._wrapper = _copied(base)
            path = _sqlite_file(base) if base.vendor == "sqlite" else None
            self._lock = None if path is None else FileLock(path.with_name(path.name + ".paygent-lock"))
        if self._wrapper.connection is None:
            self._wrapper.connect()
            _prepare(self._wrapper)
        return self._wrapper

    def _disconnect(self) -> None:
        if self._wrapper is not None:
            with contextlib.suppress(Error):
                self._wrapper._close()  # close() is refused where an event loop runs, as it may at a fork
            self._wrapper.connection = None


@contextlib.contextmanager
def _explicit(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """
    A transaction on this very connection object.

    ``transaction.atomic`` finds its connection by alias; a copy is known to nobody but us.
    """
    connection.set_autocommit(False, force_begin_transaction_with_broken_autocommit=True)
    try:
        yield
        connection.commit()
    except BaseException:
        with contextlib.suppress(Error):  # what was lost is rolled back by the database
            connection.rollback()
        raise
    finally:
        with contextlib.suppress(Error):  # a lost connection: the next use opens another
            connection.set_autocommit(True)


def _copied(base: BaseDatabaseWrapper) -> BaseDatabaseWrapper:
    """A wrapper like *base*, in autocommit, that waits for nobody for long and keeps no log of queries."""
    settings = copy.deepcopy(base.settings_dict)
    settings.update(ATOMIC_REQUESTS=False, AUTOCOMMIT=True, CONN_HEALTH_CHECKS=False)
    _adapt(base.vendor, settings["OPTIONS"])
    wrapper: BaseDatabaseWrapper = type(base)(settings, base.alias)
    wrapper.inc_thread_sharing()  # it is ours to keep threads apart
    wrapper.queries_log = deque(maxlen=0)
    return wrapper


def _adapt(vendor: str, options: dict[str, Any]) -> None:
    if vendor == "sqlite":
        options.update(timeout=FILE_WAIT_S, transaction_mode="IMMEDIATE")
        return
    options.pop("isolation_level", None)  # a row that somebody waited for must be read as it is by then
    if vendor == "mysql":
        options["isolation_level"] = "read committed"
    options.setdefault("connect_timeout", _CONNECT_S)
    options.pop("pool", None)  # one connection, kept
    options.pop("server_side_binding", None)


def _prepare(connection: BaseDatabaseWrapper) -> None:
    if connection.vendor == "mysql":
        with connection.cursor() as cursor:
            cursor.execute(f"SET SESSION innodb_lock_wait_timeout = {ROW_WAIT_S}")


def _begin(connection: BaseDatabaseWrapper) -> None:
    """No row is waited for without an end, and none stays locked by a process that was stopped."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(setting(_settings(connection)))


def _settings(connection: BaseDatabaseWrapper) -> dict[str, str]:
    limits = dict.fromkeys(
        ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"), f"{ROW_WAIT_S}s"
    )
    if connection.pg_version >= BOUNDS_TRANSACTIONS:
        limits["transaction_timeout"] = f"{TRANSACTION_S}s"
    return {**limits, **BY_KEYS}


@contextlib.contextmanager
def _sql(connection: BaseDatabaseWrapper) -> Iterator[Sql]:
    sql = Sql(connection)
    try:
        yield sql
    finally:
        sql.close()


def _sqlite_file(connection: BaseDatabaseWrapper) -> Path | None:
    """The file of a SQLite database; ``None`` for one in memory."""
    name = str(connection.settings_dict["NAME"])
    if name == ":memory:" or "mode=memory" in name:
        return None
    return Path(name.removeprefix("file:").partition("?")[0]).absolute()


# -- forks ------------------------------------------------------------------------------------------------

_sources: weakref.WeakSet[Own] = weakref.WeakSet()
_all_stay_closed = False
_stopped: list[Own] = []  # those that the fork under way has stopped: the same are let go


def stay_closed() -> None:
    """In a child: a thread of the parent was at SQLite, through some connection, when it was forked."""
    global _all_stay_closed  # noqa: PLW0603  # for the life of the process
    _all_stay_closed = True


def _before_fork() -> None:
    """
    Close every connection before a fork, and let none open until it is over.

    Parent and child would speak on one socket; and a child of SQLite believes in locks that it does not hold.
    """
    _stopped.extend(_sources)
    for source in _stopped:
        if source._use.acquire(timeout=_FORK_WAIT_S):
            source._disconnect()
        else:
            source._stays_closed = True


def _after_fork_in_parent() -> None:
    for source in _stopped:
        if source._stays_closed:
            source._stays_closed = False
        else:
            source._use.release()
    _stopped.clear()


def _after_fork_in_child() -> None:
    for source in _stopped:
        source._use = threading.RLock()
        source._wrapper = None
        if source._lock is not None:
            source._lock.close()
            source._lock = None
    _stopped.clear()


stop_at_forks(_before_fork, _after_fork_in_parent, _after_fork_in_child)
