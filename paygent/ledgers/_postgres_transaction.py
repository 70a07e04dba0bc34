"""One transaction of the PostgreSQL ledger: load under the accounts' locks, let the rule run, write."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from paygent.core.events import Event
from paygent.ledger import Account, LeaseRequest, PlanRow
from paygent.ledgers._postgres_link import Again, Connection, limit_time, rearm
from paygent.ledgers._postgres_rows import INSERT_EVENTS, event_lists, got, got_row, put
from paygent.ledgers._rows import LeaseRow, SessionRow
from paygent.ledgers._staged import Guesses, OwnSession, StagedRows
from paygent.ledgers._values import amounts_from, amounts_to

_LOCK = (
    "SELECT id, user_id, plan, own_config, period_start_us, period_end_us, sdk_enabled, contended_us "
    "FROM paygent.accounts WHERE user_id = ANY(%s) ORDER BY user_id FOR UPDATE"
)
_CREATE = (
    "INSERT INTO paygent.accounts (user_id) SELECT * FROM unnest(%s::text[]) "
    "ON CONFLICT (user_id) DO NOTHING RETURNING id, user_id"
)
_NOW = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_LEASES = (
    "SELECT user_id, lease_id, seq, expires_us, amounts, denied, busy "
    "FROM paygent.leases JOIN paygent.accounts ON id = account_id WHERE user_id = ANY(%s)"
)
_SESSIONS = (
    "SELECT user_id, own_id, session_id, started_us, ends_us "
    "FROM paygent.sessions JOIN paygent.accounts ON id = account_id "
    "JOIN unnest(%s::text[], %s::text[]) AS asked (asked_user, asked_own) "
    "ON user_id = asked_user AND own_id = asked_own"
)
_PLANS = (
    "SELECT name, key, config FROM paygent.plans WHERE name = ANY(%s) "
    "OR name IN (SELECT plan FROM paygent.accounts WHERE user_id = ANY(%s))"
)
_TOTALS = (
    'SELECT user_id, "window", scope, amount FROM paygent.totals '
    "JOIN paygent.accounts ON id = account_id "
    "JOIN unnest(%s::text[], %s::text[]) AS asked (asked_user, asked_window) "
    'ON user_id = asked_user AND "window" = asked_window'
)
_PUT_ACCOUNTS = (
    "UPDATE paygent.accounts SET plan = new.plan, own_config = new.own_config, "
    "period_start_us = new.period_start_us, period_end_us = new.period_end_us, "
    "sdk_enabled = new.sdk_enabled, contended_us = new.contended_us "
    "FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::boolean[], "
    "%s::bigint[]) AS new (id, plan, own_config, period_start_us, period_end_us, sdk_enabled, contended_us) "
    "WHERE accounts.id = new.id"
)
_PUT_SESSIONS = (
    "INSERT INTO paygent.sessions SELECT * FROM "
    "unnest(%s::bigint[], %s::text[], %s::text[], %s::bigint[], %s::bigint[]) "
    "ON CONFLICT (account_id, own_id) DO UPDATE SET session_id = excluded.session_id, "
    "started_us = excluded.started_us, ends_us = excluded.ends_us"
)
_PUT_LEASES = (
    "INSERT INTO paygent.leases SELECT * FROM unnest("
    "%s::bigint[], %s::text[], %s::bigint[], %s::bigint[], %s::text[], %s::text[], %s::boolean[]) "
    "ON CONFLICT (account_id, lease_id) DO UPDATE SET seq = excluded.seq, expires_us = excluded.expires_us, "
    "amounts = excluded.amounts, denied = excluded.denied, busy = excluded.busy"
)
_DROP_LEASES = (
    "DELETE FROM paygent.leases USING unnest(%s::bigint[], %s::text[]) AS gone (account, lease) "
    "WHERE account_id = account AND lease_id = lease"
)
_ADD = (
    "INSERT INTO paygent.totals SELECT * FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::bigint[]) "
    'ON CONFLICT (account_id, "window", scope) DO UPDATE SET amount = totals.amount + excluded.amount'
)


class Transaction:
    """
    One open transaction over some users; ``rows`` is what the rule works on, and :meth:`commit` stores it.

    Accounts are locked in the order of their names, before anything else is written.
    """

    def __init__(
        self, connection: Connection, clock: Callable[[], int] | None, guesses: Guesses | None = None
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._guesses = guesses or Guesses()
        self._ids: dict[str, int] = {}
        self.rows = StagedRows()

    def begin(
        self,
        users: Iterable[str],
        create: Collection[str],
        requests: Sequence[LeaseRequest],
        events: Sequence[Event],
    ) -> None:
        """
        Lock the accounts of *users* and load what *requests* need of them; append *events*.

        Args:
            users: Whose accounts to lock, where they exist; those of *events* are added.
            create: Those of them whose accounts are made where there are none; those of *events* too.
            events: Each once.

        Raises:
            Again: An account was made by somebody else at the same moment.
        """
        payers = {event.user_id for event in events}
        users = payers.union(users)
        names = [put(user_id) for user_id in users]
        own = {(request.user_id, request.session_id or "") for request in requests}
        plans = self._guesses.plans(requests)
        windows = self._guesses.windows(requests)
        execute = self._connection.execute
        with self._connection.pipeline():
            execute("BEGIN")
            limit_time(self._connection)
            accounts = execute(_LOCK, (names,))
            now = execute(_NOW)
            leases = execute(_LEASES, (names,))
            sessions = execute(_SESSIONS, _pairs(own))
            found_plans = execute(_PLANS, ([put(name) for name in plans], names))
            totals = execute(_TOTALS, _pairs(windows)) if windows else None
            new = execute(INSERT_EVENTS, event_lists(events)) if events else None
            (server_now_us,) = now.fetchone() or (0,)
            self.rows = StagedRows(self._clock() if self._clock is not None else server_now_us)
            self._take_accounts(users, accounts)
            self._take_sessions(own, sessions)
            self._take_leases(leases)
            self._take_plans(requests, found_plans)
            if totals is not None:
                self._take_totals(windows, totals)
            if new is not None:
                self.rows.known_ids = {event.id for event in events} - {got(name) for (name,) in new}
        self._create([user_id for user_id in payers.union(create) if self.rows.accounts[user_id] is None])
        missing = self.rows.windows_asked(requests)
        if missing:
            self._take_totals(missing, execute(_TOTALS, _pairs(missing)))
        else:
            rearm(self._connection)

    def commit(self) -> None:
        """Write what has changed and end the transaction, in one trip."""
        with self._connection.pipeline():
            self._write()
            self._connection.execute("COMMIT")

    def _take_accounts(self, users: Iterable[str], found: Iterable[Sequence[Any]]) -> None:
        self.rows.accounts = dict.fromkeys(users)
        self.rows.leases_of = {user_id: {} for user_id in users}
        for account_id, user_id, plan, config, start_us, end_us, enabled, contended_us in map(got_row, found):
            period = None if start_us is None else (start_us, end_us)
            self._ids[user_id] = account_id
            self.rows.accounts[user_id] = Account(user_id, plan, config, period, enabled, contended_us)

    def _take_sessions(self, own: Iterable[OwnSession], found: Iterable[Sequence[Any]]) -> None:
        self.rows.own_sessions = dict.fromkeys(own)
        for user_id, own_id, *session in map(got_row, found):
            self.rows.own_sessions[user_id, own_id] = SessionRow(*session)

    def _take_leases(self, found: Iterable[Sequence[Any]]) -> None:
        for user_id, lease_id, seq, expires_us, amounts, denied, busy in map(got_row, found):
            lease = LeaseRow(lease_id, seq, expires_us, amounts_from(amounts), denied, busy)
            self.rows.leases_of[user_id][lease_id] = lease

    def _take_plans(self, requests: Sequence[LeaseRequest], found: Iterable[Sequence[Any]]) -> None:
        """All that the rule may ask for are there: those named, and those assigned to the users."""
        self.rows.plans = {row.name: row for row in map(PlanRow._make, map(got_row, found))}
        self.rows.plans.update(dict.fromkeys(self.rows.plans_asked(requests)))

    def _take_totals(self, asked: Iterable[tuple[str, str]], found: Iterable[Sequence[Any]]) -> None:
        for user_id, window in asked:
            self.rows.posted[user_id][window] = {}
        for user_id, window, scope, amount in map(got_row, found):
            self.rows.posted[user_id][window][scope] = amount

    def _create(self, missing: list[str]) -> None:
        if not missing:
            return
        names = sorted(put(user_id) for user_id in missing)
        made = self._connection.execute(_CREATE, (names,)).fetchall()
        if len(made) != len(names):
            raise Again
        for account_id, name in made:
            self._ids[got(name)] = account_id
            self.rows.accounts[got(name)] = Account(got(name))

    def _write(self) -> None:
        rows = self.rows
        dropped = [key for key, lease in rows.changed_leases.items() if lease is None]
        for sql, values in (
            (_PUT_ACCOUNTS, [self._account_values(account) for account in rows.changed_accounts.values()]),
            (
                _PUT_SESSIONS,
                [
                    (self._ids[u], put(own), put(s[0]), *s[1:])
                    for (u, own), s in rows.changed_sessions.items()
                ],
            ),
            (
                _PUT_LEASES,
                [
                    self._lease_values(u, lease)
                    for (u, _), lease in rows.changed_leases.items()
                    if lease is not None
                ],
            ),
            (_DROP_LEASES, [(self._ids[u], put(lease_id)) for u, lease_id in dropped]),
            (
                _ADD,
                [(self._ids[u], put(window), put(scope), n) for (u, scope, window), n in rows.deltas.items()],
            ),
        ):
            if values:
                self._connection.execute(sql, _lists(values, len(values[0])))

    def _account_values(self, account: Account) -> tuple[Any, ...]:
        start_us, end_us = account.period or (None, None)
        plan = None if account.plan is None else put(account.plan)
        config = None if account.own_config is None else put(account.own_config)
        return (
            self._ids[account.user_id],
            plan,
            config,
            start_us,
            end_us,
            account.sdk_enabled,
            account.contended_us,
        )

    def _lease_values(self, user_id: str, lease: LeaseRow) -> tuple[Any, ...]:
        denied = None if lease.denied is None else put(lease.denied)
        amounts = amounts_to(lease.amounts)
        return (
            self._ids[user_id],
            put(lease.lease_id),
            lease.seq,
            lease.expires_us,
            amounts,
            denied,
            lease.busy,
        )


def _lists(rows: Collection[Sequence[Any]], width: int) -> list[list[Any]]:
    """*rows* as columns, which PostgreSQL makes rows of again."""
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]


def _pairs(rows: Collection[tuple[str, str]]) -> list[list[str]]:
    """Pairs of texts as two columns."""
    return _lists([(put(first), put(second)) for first, second in rows], 2)
