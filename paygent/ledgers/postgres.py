"""A ledger in PostgreSQL, shared by every process of a fleet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from paygent.core.events import Event
from paygent.ledger import Account, Bucket, GateRow, Job, LeaseReply, LeaseRequest
from paygent.ledgers._postgres_insight import PostgresInsight
from paygent.ledgers._postgres_link import Connection, Link, limit_time
from paygent.ledgers._postgres_rows import (
    EVENT_COLUMNS,
    GATE_COLUMNS,
    got,
    got_row,
    insert_gates,
    put,
    to_event,
)
from paygent.ledgers._postgres_transaction import Transaction
from paygent.ledgers._rows import SESSIONS_KEPT_US, SWEEP_EVERY_US, apply_leases, plan_key, post_events
from paygent.ledgers._staged import Guesses
from paygent.ledgers._urls import journal_folder
from paygent.ledgers._values import from_json, to_json

_SWEPT_AT_ONCE = 1000
_PUT_PLAN = (
    "INSERT INTO paygent.plans VALUES (%s, %s, %s) ON CONFLICT (name) DO UPDATE SET "
    "key = excluded.key, config = excluded.config WHERE plans.key <> excluded.key"
)
_LEASED = (
    "SELECT DISTINCT user_id FROM paygent.leases JOIN paygent.accounts ON id = account_id "
    "WHERE lease_id = ANY(%s)"
)
_CLOSE = (
    "DELETE FROM paygent.leases USING paygent.accounts WHERE lease_id = ANY(%s) AND id = account_id "
    "AND user_id = ANY(%s)"
)
_JOB = (
    "SELECT job_id, user_id, session_id, provider, model, metadata FROM paygent.jobs WHERE provider = %s "
    "AND job_id IN (%s, (SELECT job_id FROM paygent.job_aliases WHERE provider = %s AND alias = %s))"
)


class PostgresLedger(PostgresInsight):
    """
    Tables in the schema ``paygent`` of a database, made on first use; one connection, opened then too.

    The account's row is the only lock, and the server's clock the only clock (*now_us* replaces it in tests).
    Text may hold any character, NUL included.

    Args:
        url: ``postgresql://user:password@host:port/database``, with the options of libpq.
    """

    def __init__(self, url: str, now_us: Callable[[], int] | None = None) -> None:
        self._url = url
        self._now_us = now_us
        self._link = Link(url, self._put_own_plans)
        self._journal_dir = journal_folder(url)
        self._own_plans: dict[str, str] = {}
        self._guesses = Guesses()
        self._swept_us = 0

    @property
    def journal_dir(self) -> Path | None:
        """A folder of this machine, where its processes recover each other's journals."""
        return self._journal_dir

    def lease(self, requests: Sequence[LeaseRequest]) -> list[LeaseReply]:
        events = _distinct(event for request in requests for event in request.events)
        touched = {r.user_id for r in requests if r.begin_session or r.keep or r.need or r.want or r.plan}
        users = {request.user_id for request in requests}

        def operation(connection: Connection) -> list[LeaseReply]:
            transaction = Transaction(connection, self._now_us, self._guesses)
            transaction.begin(users, touched, requests, events)
            replies = apply_leases(transaction.rows, requests)
            transaction.commit()
            return replies

        replies = self._link.run(operation)
        self._guesses.learn(replies)
        self._sweep(max((reply.now_us for reply in replies), default=0))
        return replies

    def settle(self, events: Sequence[Event], close: Sequence[str] = ()) -> int:
        distinct, gone = _distinct(events), [put(lease_id) for lease_id in close]

        def operation(connection: Connection) -> int:
            leased = _users_of(connection, gone) if gone else set()
            transaction = Transaction(connection, self._now_us)
            transaction.begin(leased, (), (), distinct)
            new = post_events(transaction.rows, distinct)
            if leased:
                connection.execute(_CLOSE, (gone, [put(user_id) for user_id in leased]))
            transaction.commit()
            return new

        return self._link.run(operation)

    def totals(self, user_id: str) -> dict[Bucket, int]:
        sql = (
            'SELECT scope, "window", amount FROM paygent.totals '
            "JOIN paygent.accounts ON id = account_id WHERE user_id = %s"
        )
        return {(got(scope), got(window)): amount for scope, window, amount in self._query(sql, put(user_id))}

    def put_plan(self, name: str, config: str) -> None:
        self._own_plans[name] = config
        self._query(_PUT_PLAN, put(name), plan_key(config), put(config))

    def plans(self) -> dict[str, str]:
        rows = self._query("SELECT name, config FROM paygent.plans ORDER BY name")
        return {got(name): got(config) for name, config in rows}

    def put_account(self, user_id: str, changes: Mapping[str, Any]) -> None:
        def operation(connection: Connection) -> None:
            transaction = Transaction(connection, self._now_us)
            transaction.begin({user_id}, {user_id}, (), ())
            account = transaction.rows.account(user_id) or Account(user_id)
            transaction.rows.put_account(account._replace(**changes))
            transaction.commit()

        self._link.run(operation)

    def record_gates(self, rows: Sequence[GateRow]) -> None:
        if rows:
            self._link.run(lambda connection: insert_gates(connection, rows))

    def events(self, user_id: str | None = None, *, limit: int = 1000) -> list[Event]:
        return [to_event(row) for row in self._newest(EVENT_COLUMNS, "events", user_id, limit)]

    def gate_events(self, user_id: str | None = None, *, limit: int = 100) -> list[GateRow]:
        newest = self._newest(GATE_COLUMNS, "gate_events", user_id, limit)
        rows = [GateRow._make(got_row(row)) for row in newest]
        return [row._replace(metadata=from_json(row.metadata)) for row in rows]

    def put_job(self, job: Job) -> None:
        sql = (
            "INSERT INTO paygent.jobs VALUES (%s, %s, %s, %s, %s, %s) "
            "ON CONFLICT (provider, job_id) DO UPDATE SET user_id = excluded.user_id, "
            "session_id = excluded.session_id, model = excluded.model, "
            "metadata = excluded.metadata"
        )
        values = (job.provider, job.job_id, job.user_id, job.session_id, job.model, to_json(job.metadata))
        self._query(sql, *(None if value is None else put(value) for value in values))

    def link_job(self, provider: str, job_id: str, alias: str) -> None:
        sql = (
            "INSERT INTO paygent.job_aliases VALUES (%s, %s, %s) "
            "ON CONFLICT (provider, alias) DO UPDATE SET job_id = excluded.job_id"
        )
        self._query(sql, put(provider), put(alias), put(job_id))

    def job(self, provider: str, name: str) -> Job | None:
        for row in self._query(_JOB, put(provider), put(name), put(provider), put(name)):
            *fields, metadata = got_row(row)
            return Job._make((*fields, from_json(metadata)))
        return None

    def beside(self) -> PostgresLedger:
        """A ledger on the same database with a connection of its own."""
        return PostgresLedger(self._url, self._now_us)

    def pulse(self) -> int:
        """It would have to be asked."""
        return 0

    def forget_after_fork(self) -> None:
        """The child opens a connection of its own, and its parent notices nothing."""
        self._link.forget_after_fork()

    def close(self) -> None:
        self._link.close()

    # -- the tables ----------------------------------------------------------------------------------------

    def _query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """One statement in a transaction of its own."""

        def operation(connection: Connection) -> list[tuple[Any, ...]]:
            with connection.pipeline(), connection.transaction():
                limit_time(connection)
                cursor = connection.execute(sql.encode(), values)
            return cursor.fetchall() if cursor.description else []

        return self._link.run(operation)

    def _newest(self, columns: str, table: str, user_id: str | None, limit: int) -> list[tuple[Any, ...]]:
        where, values = ("", ()) if user_id is None else ("WHERE user_id = %s ", (put(user_id),))
        order = "ORDER BY timestamp_us DESC, id DESC LIMIT %s"
        sql = f"SELECT {columns} FROM paygent.{table} {where}{order}"  # noqa: S608  # constants
        return self._query(sql, *values, limit)

    def _put_own_plans(self, connection: Connection) -> None:
        """Tables begun anew must not make the plans of this process unlimited."""
        for name, config in self._own_plans.items():
            connection.execute(_PUT_PLAN, (put(name), plan_key(config), put(config)))

    def _sweep(self, now_us: int) -> None:
        """Once a minute forget what has ended; rows that somebody is at are left for the next time."""
        if abs(now_us - self._swept_us) < SWEEP_EVERY_US:
            return
        self._swept_us = now_us
        for table, column, before_us in (
            ("leases", "expires_us", now_us),
            ("sessions", "ends_us", now_us - SESSIONS_KEPT_US),
        ):
            self._query(
                f"DELETE FROM paygent.{table} WHERE ctid IN (SELECT ctid FROM paygent.{table} "  # noqa: S608
                f"WHERE {column} <= %s LIMIT {_SWEPT_AT_ONCE} FOR UPDATE SKIP LOCKED)",
                before_us,
            )


def _distinct(events: Iterable[Event]) -> list[Event]:
    return list({event.id: event for event in events}.values())


def _users_of(connection: Connection, leases: list[str]) -> set[str]:
    return {got(user_id) for (user_id,) in connection.execute(_LEASED, (leases,))}
