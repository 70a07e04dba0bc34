"""The rows of the Django ledger: what is read and written within one transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from paygent.core.events import Event
from paygent.core.windows import session_window
from paygent.ledger import Account, Bucket, PlanRow
from paygent.ledgers._rows import LeaseRow, SessionRow
from paygent.ledgers._staged import Guesses
from paygent_django.ledger import _ahead, _events
from paygent_django.ledger._accounts import Accounts
from paygent_django.ledger._ahead import Asking
from paygent_django.ledger._sql import Sql, chunks
from paygent_django.ledger._values import LEASE_COLUMNS, lease_values, to_lease, to_totals
from paygent_django.models import EndUser, Lease, Session, Total, UsageEvent
from paygent_django.models.fields import escape, unescape

_SESSION = ("user_id", "own_id", "session_id", "started_us", "ends_us")
_SWEEP_MAX = 1000


class DjangoRows:
    """
    The rows of one project in one open transaction, the accounts of its users locked.

    In a pipeline :meth:`begin` reads ahead what will be asked for. What is not there is read when it is.
    """

    def __init__(self, accounts: Accounts, shard: int) -> None:
        self.accounts = accounts
        self._sql: Sql = accounts.sql
        self._shard = shard
        self._leases: dict[str, dict[str, LeaseRow]] = {}
        self._sessions: dict[tuple[str, str], SessionRow | None] = {}
        self._totals: dict[tuple[str, str], dict[str, int]] = {}  # user and window: by scope
        self._asked_ids: set[str] = set()
        self._known_ids: set[str] = set()
        self._put: dict[tuple[str, str], LeaseRow | None] = {}  # None: dropped

    def begin(self, users: Collection[str], asking: Asking, guesses: Guesses) -> None:
        """Lock and read *users*, made if need be, and read what *asking* names and *guesses* add."""
        if not self._sql.is_pipelined:
            self.accounts.hold(users, asking.looking)
            return
        take_users = self.accounts.look({*users, *asking.looking}, guesses.plans(asking.requests))
        take_rows = _ahead.ask(self._sql, self.accounts.project_pk, asking, guesses)
        take_users()
        found = take_rows()
        # Whoever was not there cannot have had a row locked: what is his is read after he is made.
        is_there = self.accounts.held
        self._asked_ids, self._known_ids = set(asking.event_ids), found.known_ids
        self._leases = {user: rows for user, rows in found.leases.items() if is_there(user)}
        self._sessions = {key: row for key, row in found.sessions.items() if is_there(key[0])}
        self._totals = {key: sums for key, sums in found.totals.items() if is_there(key[0])}
        self.accounts.create(users)

    def flush(self) -> None:
        """Write the leases that have changed."""
        changed, self._put = self._put, {}
        kept = [
            (self.accounts.pk(user_id), *lease_values(row))
            for (user_id, _), row in sorted(changed.items(), key=lambda item: item[0])
            if row is not None
        ]
        self._sql.put(Lease, ("user_id", *LEASE_COLUMNS), ("user_id", "lease_id"), kept)
        for (user_id, lease_id), row in changed.items():
            if row is None:
                table, values = self._sql.table(Lease), (self.accounts.pk(user_id), escape(lease_id))
                self._sql.run(f"DELETE FROM {table} WHERE user_id = %s AND lease_id = %s", values)  # noqa: S608

    def now_us(self) -> int:
        return self.accounts.now_us

    def account(self, user_id: str) -> Account | None:
        held = self.accounts.held(user_id)
        return None if held is None else held.account

    def put_account(self, account: Account) -> None:
        self.accounts.put(account)

    def plan(self, name: str) -> PlanRow | None:
        return self.accounts.plan(name)

    def session(self, user_id: str, own_id: str) -> SessionRow | None:
        key = user_id, own_id
        if key not in self._sessions:
            self._sessions[key] = self._read_session(user_id, own_id)
        return self._sessions[key]

    def _read_session(self, user_id: str, own_id: str) -> SessionRow | None:
        held = self.accounts.held(user_id)
        if held is None:
            return None
        query = (
            f"SELECT session_id, started_us, ends_us FROM {self._sql.table(Session)} "  # noqa: S608
            "WHERE user_id = %s AND own_id = %s"
        )
        row = self._sql.row(query, (held.pk, escape(own_id)))
        return None if row is None else SessionRow(unescape(row[0]), row[1], row[2])

    def put_session(self, user_id: str, own_id: str, session: SessionRow) -> None:
        row = (
            self.accounts.pk(user_id), escape(own_id), escape(session.session_id), session.started_us,
            session.ends_us,
        )  # fmt: skip
        self._sql.put(Session, _SESSION, ("user_id", "own_id"), [row])
        before, self._sessions[user_id, own_id] = self._sessions.get((user_id, own_id)), session
        is_new = before is None or before.session_id != session.session_id
        if is_new and session.started_us == self.now_us():  # it begins now, so nothing is posted to it yet
            window = session_window(session.session_id, session.started_us, 0)
            self._totals.setdefault((user_id, window.key), {})

    def insert_events(self, events: Sequence[Event]) -> Sequence[Event]:
        known = self.known_ids(events)
        new = [event for event in events if event.id not in known]
        if new:
            _events.insert(self.accounts, new, self._shard)
            known.update(event.id for event in new)
        return new

    def known_ids(self, events: Sequence[Event]) -> set[str]:
        """The ids that are there already, of *events* at least."""
        ids = [event.id for event in events if event.id not in self._asked_ids]
        if ids:
            self._asked_ids.update(ids)
            self._known_ids |= _events.known(self._sql, UsageEvent, "event_id", self.accounts.project_pk, ids)
        return self._known_ids

    def add(self, deltas: Mapping[tuple[str, str, str], int]) -> None:
        names, pk = _events.total_names, self.accounts.pk
        rows = sorted(
            (pk(user_id), *names(scope, window), amount)
            for (user_id, scope, window), amount in deltas.items()
        )
        columns = ("user_id", "key", "window", "scope", "amount")
        self._sql.add(Total, columns, ("user_id", "key"), ("amount",), rows)
        for (user_id, scope, window), amount in deltas.items():
            sums = self._totals.get((user_id, window))
            if sums is not None:
                sums[scope] = sums.get(scope, 0) + amount

    def totals(self, user_id: str, windows: Collection[str]) -> dict[Bucket, int]:
        held = self.accounts.held(user_id)
        if held is None:
            return {}
        missing = [window for window in windows if (user_id, window) not in self._totals]
        if missing:
            self._read_totals(user_id, held.pk, missing)
        return {
            (scope, window): amount
            for window in windows
            for scope, amount in self._totals[user_id, window].items()
        }

    def _read_totals(self, user_id: str, pk: int, windows: Sequence[str]) -> None:
        window = self._sql.quoted("window")
        named, values = self._sql.among(window, [escape(one) for one in windows])
        query = f"SELECT scope, {window}, amount FROM {self._sql.table(Total)} WHERE user_id = %s AND {named}"  # noqa: S608
        found = to_totals(self._sql.rows(query, (pk, *values)))
        self._totals.update(((user_id, one), {}) for one in windows)
        for (scope, one), amount in found.items():
            self._totals[user_id, one][scope] = amount

    def leases(self, user_id: str) -> list[LeaseRow]:
        return list(self._leases_of(user_id).values())

    def _leases_of(self, user_id: str) -> dict[str, LeaseRow]:
        if user_id not in self._leases:
            held = self.accounts.held(user_id)
            query = (
                f"SELECT lease_id, seq, expires_us, amounts, denied, busy FROM {self._sql.table(Lease)} "  # noqa: S608
                "WHERE user_id = %s"
            )
            found = [] if held is None else self._sql.rows(query, (held.pk,))
            self._leases[user_id] = {lease.lease_id: lease for lease in map(to_lease, found)}
        return self._leases[user_id]

    def put_lease(self, user_id: str, row: LeaseRow) -> None:
        self._leases_of(user_id)[row.lease_id] = self._put[user_id, row.lease_id] = row

    def drop_lease(self, user_id: str, lease_id: str) -> None:
        self._leases_of(user_id).pop(lease_id, None)
        self._put[user_id, lease_id] = None

    def close_leases(self, lease_ids: Sequence[str]) -> None:
        """Drop the leases of dead processes, of this project's users."""
        table, users = self._sql.table(Lease), self._sql.table(EndUser)
        for chunk in chunks([escape(lease_id) for lease_id in lease_ids], 500):
            named, values = self._sql.among("lease_id", chunk)
            query = (
                f"DELETE FROM {table} WHERE {named} "  # noqa: S608
                f"AND user_id IN (SELECT id FROM {users} WHERE project_id = %s)"
            )
            self._sql.run(query, (*values, self.accounts.project_pk))

    def sweep(self, leases_before_us: int, sessions_before_us: int) -> None:
        self._forget(Lease, "expires_us", leases_before_us)
        self._forget(Session, "ends_us", sessions_before_us)

    def _forget(self, model: Any, column: str, before_us: int) -> None:
        """Delete what nobody has locked: its owner is just at it."""
        table = self._sql.table(model)
        can_skip = self._sql.connection.features.has_select_for_update_skip_locked
        query = f"SELECT id FROM {table} WHERE {column} <= %s LIMIT {_SWEEP_MAX}"  # noqa: S608
        query += " FOR UPDATE SKIP LOCKED" if can_skip else ""
        old = [row[0] for row in self._sql.rows(query, (before_us,))]
        for chunk in chunks(old, 500):
            named, values = self._sql.among("id", chunk)
            self._sql.run(f"DELETE FROM {table} WHERE {named}", values)  # noqa: S608
