"""Statements that travel to PostgreSQL together: one trip for many."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model
from django.db.utils import Error

from paygent_django.ledger._planner import plans_of, setting
from paygent_django.ledger._sql import Rows, Sql

BOUNDS_TRANSACTIONS = 170_000  # the version of PostgreSQL that ends a transaction by itself
_COPIED_MIN = 16  # rows from which a copy, which is a trip of its own, costs both ends less than a statement


class _Answer:
    """The rows of a question, once it was sent."""

    __slots__ = ("_send", "rows")

    def __init__(self, send: Callable[[], None]) -> None:
        self._send = send
        self.rows: Rows | None = None

    def __call__(self) -> Rows:
        if self.rows is None:
            self._send()
        assert self.rows is not None
        return self.rows


class PipelinedSql(Sql):
    """
    Statements that wait until an answer is needed, then go in one trip, in their order.

    It begins its transaction itself, with the first trip; :meth:`commit` goes with the last one. A statement
    that fails is told by the trip that takes it. Where the connection may keep prepared statements
    (``prepare_threshold`` in its ``OPTIONS``), the ledger's are prepared on first use: to plan one takes
    PostgreSQL longer than to run it.
    """

    is_pipelined = True

    def __init__(self, connection: BaseDatabaseWrapper, settings: Mapping[str, str]) -> None:
        super().__init__(connection)
        self._is_watched = connection.pg_version >= BOUNDS_TRANSACTIONS
        self._waiting: list[tuple[str, Sequence[Any], _Answer | None]] = []
        plans = plans_of(connection.connection)
        self._note = "" if plans is None else plans.used(connection.connection)
        for sql in ("BEGIN", setting(settings)):
            self.run(sql)

    def run(self, sql: str, values: Sequence[Any] = ()) -> None:
        self._waiting.append((sql, values, None))

    def rows(self, sql: str, values: Sequence[Any] = ()) -> Rows:
        return self.ask(sql, values)()

    def ask(self, sql: str, values: Sequence[Any] = ()) -> Callable[[], Rows]:
        answer = _Answer(self._send)
        self._waiting.append((sql, values, answer))
        return answer

    def insert(self, model: type[Model], names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Insert *rows*; many are copied in."""
        if len(rows) < _COPIED_MIN:
            super().insert(model, names, rows)
            return
        if self._waiting:
            self._send()
        connection = self.connection
        beginning = f"COPY {self.table(model)} ({self.columns(names)}) FROM STDIN"
        with (
            connection.wrap_database_errors,
            connection.connection.cursor() as cursor,
            cursor.copy(beginning) as copy,
        ):
            for row in rows:
                copy.write_row(row)

    def commit(self) -> None:
        """Send what waits, and end the transaction."""
        self.run("COMMIT")
        self._is_watched = True
        self._send()

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        asked: list[tuple[_Answer, Any]] = []
        connection = self.connection
        try:
            with connection.wrap_database_errors, _preparing(connection.connection):
                with connection.connection.pipeline():
                    for sql, values, answer in waiting:
                        cursor = self._cursor if answer is None else _cursor(connection)
                        if answer is not None:
                            asked.append((answer, cursor))
                        cursor.execute(sql + self._note, values or None)
                for answer, cursor in asked:
                    answer.rows = cursor.fetchall()
            if not self._is_watched:
                # The driver ends a pipeline with a message that the server takes for the end of idleness;
                # after this one it watches over a transaction whose process was stopped.
                self._is_watched = True
                self._cursor.execute("SELECT 1")
        finally:
            for _, cursor in asked:
                cursor.close()


def _cursor(connection: BaseDatabaseWrapper) -> Any:
    """The driver's own cursor, a fraction of the time; Django's where somebody watches the statements."""
    if connection.execute_wrappers or connection.queries_logged:
        return connection.cursor()
    return connection.connection.cursor()


@contextlib.contextmanager
def _preparing(connection: Any) -> Iterator[None]:
    """Within the block statements are prepared on first use, if the connection may keep any."""
    threshold = connection.prepare_threshold
    if threshold is None:
        yield
        return
    connection.prepare_threshold = 0
    try:
        yield
    finally:
        connection.prepare_threshold = threshold


def can_pipeline(connection: BaseDatabaseWrapper) -> bool:
    """Whether *connection* may send many statements at once, and is in no transaction of its caller's."""
    if connection.vendor != "postgresql" or connection.in_atomic_block:
        return False
    connection.ensure_connection()
    pipeline = getattr(connection.connection, "pipeline", None)  # psycopg2 has none
    return pipeline is not None and _is_supported() and connection.get_autocommit()


def _is_supported() -> bool:
    import psycopg

    return bool(psycopg.Pipeline.is_supported())


@contextlib.contextmanager
def pipelined(connection: BaseDatabaseWrapper, settings: Mapping[str, str]) -> Iterator[PipelinedSql]:
    """A transaction that ends with the block, with *settings* of its own."""
    sql = PipelinedSql(connection, settings)
    try:
        yield sql
        sql.commit()
    except BaseException:
        _undo(connection)
        raise
    finally:
        with contextlib.suppress(Error):
            sql.close()


def _undo(connection: BaseDatabaseWrapper) -> None:
    """Roll back; a connection that cannot is closed, which undoes it too."""
    try:
        with connection.wrap_database_errors:
            if connection.connection is not None:
                connection.connection.rollback()
    except Error:
        with contextlib.suppress(Error):
            connection.close()
