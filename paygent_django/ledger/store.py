"""The Django ledger: the port of ``paygent.ledger`` over the models of this app."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from django.db import connections

from paygent.core.events import Event
from paygent.ledger import Account, Bucket, GateRow, Job, LeaseReply, LeaseRequest
from paygent.ledgers._rows import Sweeper, apply_leases, post_events
from paygent.ledgers._staged import Guesses
from paygent_django.database import DEFAULT_PROJECT, connection_kind, database_alias, project_name
from paygent_django.ledger import _events, _jobs, _links, _plans
from paygent_django.ledger._accounts import Accounts
from paygent_django.ledger._ahead import Asking
from paygent_django.ledger._connections import Own, Shared, Source
from paygent_django.ledger._events import Posted
from paygent_django.ledger._faults import Fault, raised
from paygent_django.ledger._projects import project_pk
from paygent_django.ledger._rows import DjangoRows
from paygent_django.ledger._sql import Sql
from paygent_django.ledger._values import to_totals
from paygent_django.ledger.watching import Watcher, new_watcher
from paygent_django.models import EndUser, GateEvent, Total, UsageEvent, WebhookEndpoint
from paygent_django.models.fields import escape

log = logging.getLogger("paygent")

T = TypeVar("T")
_TRIES = 4
_SHARDS = 16


class _Known:
    """What one ledger remembers for the next operation; all of it may be forgotten."""

    def __init__(self) -> None:
        self.guesses = Guesses()
        self.sweeper = Sweeper()


@lru_cache(maxsize=1024)
def _known_of(_alias: str, _project: str) -> _Known:
    return _Known()


class DjangoLedger:
    """
    The ledger of one project, in the database that holds this app's tables.

    Args:
        alias: The database; ``PAYGENT["DATABASE"]`` by default.
        project: The tenant, made on the first call; ``PAYGENT["PROJECT"]`` by default.
        connection: ``"own"``: a connection outside every request's transaction, for the ledger thread.
            ``"shared"``: that of the calling thread, for the API and commands. ``"pinned"``: for every
            thread that of the one which made the ledger, for ``TestCase``.
        now_us: The clock; by default the database's own, on SQLite the machine's.
        project_pk: The key of the project's row, for a caller who has just read it.
        watcher: Hears what was committed.
    """

    def __init__(
        self,
        alias: str | None = None,
        project: str | None = None,
        *,
        connection: str = "own",
        now_us: Callable[[], int] | None = None,
        project_pk: int | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self.alias = alias or database_alias()
        self.project = project or project_name()
        self._source = _source(self.alias, connection)
        self._now_us = now_us
        self._project_pk = project_pk
        # The API makes a ledger for each request.
        self._known = _known_of(self.alias, self.project) if connection == "shared" else _Known()
        self._shard = uuid.uuid4().int % _SHARDS
        self._watcher = watcher

    @property
    def journal_dir(self) -> Path | None:
        """Beside a SQLite file, else in ``~/.paygent/journals``: one folder per database and project."""
        place = self._source.journal_place
        if place is None:
            return None
        name = hashlib.sha256(f"{place}\0{self.project}".encode()).hexdigest()[:16]
        if connections[self.alias].vendor == "sqlite":
            tail = "" if self.project == DEFAULT_PROJECT else f"-{name}"
            return Path(f"{place}.paygent-journals{tail}")
        return Path("~/.paygent/journals").expanduser() / name

    # -- the port -------------------------------------------------------------------------------------

    def lease(self, requests: Sequence[LeaseRequest]) -> list[LeaseReply]:
        posting = {event.user_id for request in requests for event in request.events}
        calling = {r.user_id for r in requests if r.begin_session or r.need or r.want or r.keep}
        replies = self._within(
            posting | calling, lambda rows: apply_leases(rows, requests), Asking.of(requests)
        )
        self._known.guesses.learn(replies)
        self._tell(lambda watcher: watcher.posted(self, posting))
        return replies

    def settle(self, events: Sequence[Event], close: Sequence[str] = ()) -> int:
        def post(rows: DjangoRows) -> int:
            new = post_events(rows, events)
            if close:
                rows.close_leases(close)
            return new

        users = {event.user_id for event in events}
        new = self._within(users, post, Asking(users, [event.id for event in events]))
        self._tell(lambda watcher: watcher.posted(self, users))
        return new

    def totals(self, user_id: str) -> dict[Bucket, int]:
        def read(sql: Sql, project: int) -> dict[Bucket, int]:
            query = (
                f"SELECT t.scope, t.{sql.quoted('window')}, t.amount FROM {sql.table(Total)} t "  # noqa: S608
                f"JOIN {sql.table(EndUser)} u ON u.id = t.user_id "
                "WHERE u.project_id = %s AND u.external_user_id = %s"
            )
            return to_totals(sql.rows(query, (project, escape(user_id))))

        return self._read(read)

    def put_plan(self, name: str, config: str) -> None:
        self._within((), lambda rows: _plans.put(rows.accounts, name, config))

    def plans(self) -> dict[str, str]:
        return self._read(_plans.configured)

    def put_account(self, user_id: str, changes: Mapping[str, Any]) -> None:
        def change(rows: DjangoRows) -> None:
            account = rows.account(user_id) or Account(user_id)
            rows.put_account(account._replace(**changes))

        self._within({user_id}, change)

    def record_gates(self, rows: Sequence[GateRow]) -> None:
        self._within(
            {row.user_id for row in rows},
            lambda transaction: _events.record_gates(transaction.accounts, rows, self._shard),
        )
        self._tell(lambda watcher: watcher.decided(self, rows))

    def events(self, user_id: str | None = None, *, limit: int = 1000) -> list[Event]:
        found = self._newest(UsageEvent, "event_id", _events.EVENT_COLUMNS, user_id, limit)
        return [_events.to_event(row) for row in found]

    def gate_events(self, user_id: str | None = None, *, limit: int = 100) -> list[GateRow]:
        found = self._newest(GateEvent, "gate_id", _events.GATE_SHARED, user_id, limit)
        return [_events.to_gate(row) for row in found]

    def put_job(self, job: Job) -> None:
        self._within({job.user_id}, lambda rows: _jobs.put(rows.accounts, job))

    def link_job(self, provider: str, job_id: str, alias: str) -> None:
        self._within((), lambda rows: _jobs.link(rows.accounts, provider, job_id, alias))

    def job(self, provider: str, name: str) -> Job | None:
        return self._read(lambda sql, project: _jobs.find(sql, project, provider, name))

    def post(self, events: Sequence[Event]) -> Posted:
        """
        Post *events* that others made, and say what became of them.

        The same id with other content is a conflict: it is left out, and the others are taken.
        """
        return self.post_batches([events])[0]

    def post_batches(self, batches: Sequence[Sequence[Event]]) -> list[Posted]:
        """The same for several batches, one after the other, in one transaction."""

        def step(rows: DjangoRows) -> list[Posted]:
            known = rows.known_ids([event for batch in batches for event in batch])
            new, told = _events.parted(rows.accounts, batches, known)
            post_events(rows, new)
            return told

        users = {event.user_id for batch in batches for event in batch}
        return self._within(users, step, Asking(users, [e.id for batch in batches for e in batch]))

    def pulse(self) -> int:
        """The last turn at the lock file, where there is one."""
        return self._source.pulse()

    def forget_after_fork(self) -> None:
        """Nothing of the parent's is left here: connections are closed before a fork."""

    def close(self) -> None:
        self._tell(lambda watcher: watcher.closed(self))
        self._source.close()

    # -- what an embedded app wants beyond the port ------------------------------------------------------

    def has_webhooks(self) -> bool:
        """Whether somebody wants to hear of this project."""

        def find(sql: Sql, project: int) -> bool:
            where = "WHERE project_id = %s AND is_enabled LIMIT 1"
            query = f"SELECT 1 FROM {sql.table(WebhookEndpoint)} {where}"  # noqa: S608  # names of our own
            return sql.row(query, (project,)) is not None

        return self._read(find)

    def link(self, users: Collection[str]) -> None:
        """Link those of *users* whose id is that of a user of the project's own, where his table is here."""

        def step() -> None:
            with self._source.transaction() as sql:
                _links.link(sql, self._project(sql), users)

        if _links.is_here(self.alias):
            self._guarded(step)

    def _tell(self, news: Callable[[Watcher], None]) -> None:
        """Whatever becomes of the news, the ledger has done its work."""
        if self._watcher is not None:
            try:
                news(self._watcher)
            except Exception:
                log.exception("what the ledger has committed could not be told")

    # -- transactions ---------------------------------------------------------------------------------

    def _within(
        self,
        users: Collection[str],
        work: Callable[[DjangoRows], T],
        asking: Asking | None = None,
    ) -> T:
        """Do *work* in one transaction, *users* made and locked first, others it is *asking* for locked."""

        def step() -> T:
            with self._source.transaction() as sql:
                rows = DjangoRows(Accounts(sql, self._project(sql), self._now_us), self._shard)
                rows.begin(users, asking or Asking(looking=users), self._known.guesses)
                result = work(rows)
                rows.flush()
                if asking is not None and asking.requests:
                    self._known.sweeper.sweep(rows)
                made[:] = rows.accounts.made
                return result

        made: list[str] = []
        result = self._guarded(step)
        if made:
            self._tell(lambda watcher: watcher.made(self, made))
        return result

    def _read(self, query: Callable[[Sql, int], T]) -> T:
        def step() -> T:
            with self._source.reading() as connection, self._sql(connection) as sql:
                return query(sql, self._project(sql))

        return self._guarded(step)

    def _newest(
        self, model: Any, id_column: str, names: Sequence[str], user_id: str | None, limit: int
    ) -> list[tuple[Any, ...]]:
        return self._read(
            lambda sql, project: _events.newest(sql, model, id_column, names, project, user_id, limit)
        )

    def _guarded(self, step: Callable[[], T]) -> T:
        """
        Run *step*; once more where that may help.

        Every operation may be repeated: events have ids, leases a sequence, accounts are set, not added to.
        """
        tries = _TRIES
        while True:
            tries -= 1
            try:
                return step()
            except Exception as error:
                fault = Fault.of(error)
                self._project_pk = None  # its row may be gone, as after a flush between tests
                if fault is None or tries <= 0 or not self._mended(fault):
                    raised(fault, error, self.alias)
                    raise
                if fault is Fault.LOST:
                    tries = min(tries, 1)

    def _mended(self, fault: Fault) -> bool:
        return fault is Fault.CROSSED or (fault is Fault.LOST and self._source.reconnect())

    @contextlib.contextmanager
    def _sql(self, connection: Any) -> Iterator[Sql]:
        sql = Sql(connection)
        try:
            yield sql
        finally:
            sql.close()

    def _project(self, sql: Sql) -> int:
        if self._project_pk is None:
            self._project_pk = project_pk(sql, self.project)
        return self._project_pk


def from_url(rest: str) -> DjangoLedger:
    """
    Make the ledger of ``django://``, ``django://alias`` or ``django://alias/project``.

    Raises:
        ValueError: No such database, or ``PAYGENT["CONNECTION"]`` is another word than own and shared.
    """
    alias, _, project = rest.partition("/")
    # What all threads share is the connection of the thread that sets Paygent up: the test's.
    connection = "pinned" if connection_kind(alias or None) == "shared" else "own"
    watcher = new_watcher() if connection == "own" else None
    return DjangoLedger(alias or None, unquote(project) or None, connection=connection, watcher=watcher)


def _source(alias: str, connection: str) -> Source:
    """
    The connection that was asked for.

    Raises:
        ValueError: Another word than own, shared and pinned, or no such database.
    """
    if alias not in connections:
        raise ValueError(f"PAYGENT['DATABASE']: there is no database {alias!r} in DATABASES")
    if connection == "own":
        return Own(alias)
    if connection == "shared":
        return Shared(alias)
    if connection == "pinned":
        return Shared(alias, pinned=connections[alias])
    raise ValueError(f"connection={connection!r}: must be one of 'own', 'shared' and 'pinned'")
