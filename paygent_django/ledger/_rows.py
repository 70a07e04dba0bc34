"""The rows of the Django ledger: what is read and written within one transaction."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from paygent.core.events import Event
from paygent.ledger import Account, Bucket, PlanRow
from paygent.ledgers._rows import LeaseRow, SessionRow
from paygent_django.ledger import _events
from paygent_django.ledger._accounts import Accounts
from paygent_django.ledger._sql import Sql, chunks, json_text
from paygent_django.models import EndUser, Lease, Session, Total
from paygent_django.models.fields import escape, unescape

_LEASE = ("user_id", "lease_id", "seq", "expires_us", "amounts", "denied", "busy")
_SESSION = ("user_id", "own_id", "session_id", "started_us", "ends_us")
_SWEEP_MAX = 1000


class DjangoRows:
    """The rows of one project in one open transaction, the accounts of its users locked."""

    def __init__(self, accounts: Accounts, shard: int) -> None:
        self.accounts = accounts
        self._sql: Sql = accounts.sql
        self._shard = shard

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

    def insert_events(self, events: Sequence[Event]) -> Sequence[Event]:
        return _events.insert_new(self.accounts, events, self._shard)

    def add(self, deltas: Mapping[tuple[str, str, str], int]) -> None:
        rows = sorted(
            (self.accounts.pk(user_id), _events.digest(scope, window), escape(window), escape(scope), amount)
            for (user_id, scope, window), amount in deltas.items()
        )
        columns = ("user_id", "key", "window", "scope", "amount")
        self._sql.add(Total, columns, ("user_id", "key"), ("amount",), rows)

    def totals(self, user_id: str, windows: Collection[str]) -> dict[Bucket, int]:
        held = self.accounts.held(user_id)
        if held is None:
            return {}
        window = self._sql.quoted("window")
        named, values = self._sql.among(window, [escape(one) for one in windows])
        query = f"SELECT scope, {window}, amount FROM {self._sql.table(Total)} WHERE user_id = %s AND {named}"  # noqa: S608
        return to_totals(self._sql.rows(query, (held.pk, *values)))

    def leases(self, user_id: str) -> list[LeaseRow]:
        held = self.accounts.held(user_id)
        if held is None:
            return []
        query = (
            f"SELECT lease_id, seq, expires_us, amounts, denied, busy FROM {self._sql.table(Lease)} "  # noqa: S608
            "WHERE user_id = %s"
        )
        return [_lease(row) for row in self._sql.rows(query, (held.pk,))]

    def put_lease(self, user_id: str, row: LeaseRow) -> None:
        amounts = json_text([(scope, window, amount) for (scope, window), amount in row.amounts.items()])
        denied = None if row.denied is None else escape(row.denied)
        values = (
            self.accounts.pk(user_id), escape(row.lease_id), row.seq, row.expires_us, amounts, denied,
            bool(row.busy),
        )  # fmt: skip
        self._sql.put(Lease, _LEASE, ("user_id", "lease_id"), [values])

    def drop_lease(self, user_id: str, lease_id: str) -> None:
        table = self._sql.table(Lease)
        values = (self.accounts.pk(user_id), escape(lease_id))
        self._sql.run(f"DELETE FROM {table} WHERE user_id = %s AND lease_id = %s", values)  # noqa: S608

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


def to_totals(rows: Sequence[Sequence[Any]]) -> dict[Bucket, int]:
    """Rows of scope, window and amount by bucket."""
    return {(unescape(scope), unescape(window)): amount for scope, window, amount in rows}


def _lease(row: Sequence[Any]) -> LeaseRow:
    lease_id, seq, expires_us, amounts, denied, busy = row
    by_bucket = {(scope, window): amount for scope, window, amount in json.loads(amounts)}
    denied = None if denied is None else unescape(denied)
    return LeaseRow(unescape(lease_id), seq, expires_us, by_bucket, denied, bool(busy))
