"""The one connection of a PostgreSQL ledger: bounded in time, made anew after a fault, no fork's business."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg import conninfo, errors

from paygent._forking import know_the_resolver
from paygent.ledger import LedgerError
from paygent.ledgers._postgres_schema import SCHEMA, SCHEMA_LOCK, SCHEMA_VERSION
from paygent.ledgers._urls import safe_url, without_secrets

if TYPE_CHECKING:
    from typing_extensions import LiteralString

log = logging.getLogger("paygent")

T = TypeVar("T")
Connection = psycopg.Connection[tuple[Any, ...]]

CONNECT_S = 2
TRIP_S = 4.0  # the longest that one operation may take, whatever the server does
STATEMENT_S = 3.0  # the longest that the server lets a statement run or wait for a lock
_TRIES = 8
_POLL_S = 0.1
# The server is there, and what it was given is at fault: another try would end the same way.
_OURS = (errors.DataError, errors.IntegrityError, errors.ProgrammingError, errors.NotSupportedError)
# ... except these, which say that the ledger cannot be used as it is.
_UNUSABLE = (
    errors.InsufficientPrivilege,
    errors.UndefinedTable,
    errors.InvalidSchemaName,
    errors.InvalidCatalogName,
    errors.UndefinedColumn,
)
_LIMIT_TIME: LiteralString = (
    f"SELECT set_config('statement_timeout', '{STATEMENT_S:g}s', true), "
    f"set_config('transaction_timeout', '{TRIP_S:g}s', true)"
)
_LIMIT_TIME_BEFORE_17 = _LIMIT_TIME.replace("'transaction_timeout'", "'idle_in_transaction_session_timeout'")
_AGAIN = (errors.SerializationFailure, errors.DeadlockDetected)


class Again(Exception):  # noqa: N818  # it is no error: somebody else was faster
    """Within an operation: undo it and begin it anew."""


class _TimedOut(Exception):  # noqa: N818  # see Link.run
    """The server has not answered within ``TRIP_S``."""


class _TimedConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection whose waiting ends at ``ends_s``: a server that hangs would be waited for without end."""

    ends_s = float("inf")

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **more: Any) -> T:
        """As the base class, which asks *gen* again at every interval without news."""
        return super().wait(self._until_end(gen), *(args or (_POLL_S,)), **more)

    def _until_end(self, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        try:
            state = next(gen)
            while True:
                ready = yield state
                if not ready and time.monotonic() > self.ends_s:
                    raise _TimedOut
                state = gen.send(ready)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # what the generator returns is T


class Link:
    """
    Runs operations on one connection, opened on first use.

    Every operation must be harmless when it is done twice: it is repeated when the server ends it for the
    sake of another one, and when a connection turns out to have gone stale.
    """

    def __init__(self, url: str, fresh: Callable[[Connection], None]) -> None:
        self.name = safe_url(url)
        self._url = url
        given: dict[str, Any] = {"connect_timeout": CONNECT_S, "application_name": "paygent"}
        given |= {**conninfo.conninfo_to_dict(url), "client_encoding": "utf8"}
        self._conninfo = conninfo.make_conninfo("", **given)
        self._fresh = fresh  # called when the tables had to be made
        self._connection: _TimedConnection | None = None
        self._use = threading.Lock()

    def run(self, operation: Callable[[Connection], T]) -> T:
        """
        Run *operation*; what it has begun and not committed when it fails is undone.

        Raises:
            LedgerError: The server cannot be asked, or does not answer in time.
        """
        with self._use:
            for attempt in range(_TRIES):
                was_open = self._connection is not None
                try:
                    return self._once(operation)
                except (Again, *_AGAIN) as error:
                    self._rest(attempt, error)
                except _OURS as error:
                    if isinstance(error, _UNUSABLE):
                        raise self._error(error) from error
                    raise
                except (psycopg.Error, OSError, _TimedOut) as error:
                    gone = isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
                    if not (was_open and gone) or isinstance(error, errors.QueryCanceled):
                        raise self._error(error) from error
            raise LedgerError(f"{self.name}: too many others changed the same rows")

    def close(self) -> None:
        """Close the connection; the next operation opens one."""
        with self._use:
            self._drop()

    def forget_after_fork(self) -> None:
        """
        In the child: leave the parent's connection alone.

        Its socket is shared with the parent, which must hear nothing of the child. It is also let go of, lest
        the server think the parent alive as long as the child is.
        """
        self._use = threading.Lock()
        connection, self._connection = self._connection, None
        if connection is not None:
            _inherited.append(connection)  # never finalised, as its descriptor is now another one
            with contextlib.suppress(OSError, psycopg.Error):
                null = os.open(os.devnull, os.O_RDWR)
                os.dup2(null, connection.fileno(), inheritable=False)
                os.close(null)

    def _once(self, operation: Callable[[Connection], T]) -> T:
        try:
            connection = self._open()
            connection.ends_s = time.monotonic() + TRIP_S
            return operation(connection)
        except BaseException:
            self._drop()  # what it was in the middle of is undone by that, in every case
            raise

    def _open(self) -> _TimedConnection:
        if self._connection is None:
            know_the_resolver()
            connection = self._connection = _TimedConnection.connect(self._conninfo, autocommit=True)
            connection.ends_s = time.monotonic() + TRIP_S
            if self._prepare(connection):
                self._fresh(connection)
        return self._connection

    def _prepare(self, connection: Connection) -> bool:
        """Make the tables where there are none; true if this process did."""
        if _version(connection) is not None:
            return False
        with connection.transaction():
            limit_time(connection)
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (SCHEMA_LOCK,))
            if _version(connection) is not None:
                return False
            encoding = connection.info.parameter_status("server_encoding")
            if encoding != "UTF8":
                raise LedgerError(f"{self.name}: the database must be encoded in UTF8, not {encoding}")
            if not _found(connection, "SELECT FROM pg_namespace WHERE nspname = 'paygent'"):
                connection.execute("CREATE SCHEMA paygent")  # else an administrator has made it
            connection.execute(SCHEMA)
            connection.execute("INSERT INTO paygent.version VALUES (%s)", (SCHEMA_VERSION,))
        return True

    def _rest(self, attempt: int, error: Exception) -> None:
        log.debug("%s: once more, after %r", self.name, error)
        if attempt:
            time.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311  # so that they do not meet again

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error, OSError):
                connection.close()

    def _error(self, error: Exception) -> LedgerError:
        if isinstance(error, _TimedOut):
            return LedgerError(f"{self.name}: no answer within {TRIP_S:g} s")
        told = " ".join(str(error).split()) or type(error).__name__
        return LedgerError(f"{self.name}: {without_secrets(told, self._url)}")


_inherited: list[Connection] = []


def limit_time(connection: Connection) -> None:
    """
    Bound the transaction that was just begun, on the server: also where this process stops in the middle.

    Not the connection, which behind a pooler belongs to others too. Before PostgreSQL 17 a transaction can
    only be bounded while its client is idle; see :func:`rearm`.
    """
    connection.execute(_LIMIT_TIME if _knows_transaction_timeout(connection) else _LIMIT_TIME_BEFORE_17)


def rearm(connection: Connection) -> None:
    """
    Before PostgreSQL 17: have the server watch over an idle transaction after a pipeline.

    The driver ends a pipeline with a message that the server takes for the end of idleness.
    """
    if not _knows_transaction_timeout(connection):
        connection.execute("SELECT 1")


def _knows_transaction_timeout(connection: Connection) -> bool:
    return connection.info.server_version >= 170_000


def _version(connection: Connection) -> int | None:
    """
    The version of the tables, ``None`` where there are none.

    Raises:
        LedgerError: A newer version of this package made them; they are not touched.
    """
    # Not to_regclass(): it may answer from what the server's process remembers, also under the lock.
    if not _found(connection, "SELECT FROM pg_tables WHERE schemaname = 'paygent' AND tablename = 'version'"):
        return None
    (version,) = connection.execute("SELECT version FROM paygent.version").fetchone() or (0,)
    if version > SCHEMA_VERSION:
        raise LedgerError(f"the tables were made by a newer version of paygent (schema {version})")
    return int(version)


def _found(connection: Connection, sql: LiteralString) -> bool:
    return connection.execute(sql).rowcount > 0
