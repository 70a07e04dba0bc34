"""Rows that a store loads beforehand and writes afterwards: one trip for each, however many users."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from paygent.core.events import Event
from paygent.core.windows import billing_period, session_window
from paygent.ledger import DEFAULT_PLAN, Account, Bucket, LeaseReply, LeaseRequest, PlanRow
from paygent.ledgers._rows import LeaseRow, SessionRow

OwnSession = tuple[str, str]  # user id and own id
_GUESSES_MAX = 10_000


class Guesses:
    """
    What was last asked of each user beyond what his requests name, so that it can be loaded at once.

    A guess that is wrong costs a trip, never an answer: see ``StagedRows.plans_asked`` and ``windows_asked``.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[str | None, frozenset[str]]] = {}

    def plans(self, requests: Sequence[LeaseRequest]) -> set[str]:
        """The plans that will be asked for."""
        known = (self._known.get(request.user_id, (None, ())) for request in requests)
        named = {request.plan for request in requests} | {plan for plan, _ in known}
        return {DEFAULT_PLAN, *(name for name in named if name is not None)} if requests else set()

    def windows(self, requests: Iterable[LeaseRequest]) -> set[tuple[str, str]]:
        """The windows by user that will be asked for."""
        return {
            (request.user_id, window)
            for request in requests
            for window in (
                *self._known.get(request.user_id, (None, ()))[1],
                *(window for _, window in request.keep),
            )
        }

    def learn(self, replies: Iterable[LeaseReply]) -> None:
        """Remember what was needed."""
        if len(self._known) > _GUESSES_MAX:
            self._known.clear()
        for reply in replies:
            windows = {reply.period.key}
            if reply.session is not None:
                windows.add(reply.session.window.key)
            self._known[reply.account.user_id] = reply.account.plan, frozenset(windows)


class StagedRows:
    """
    ``paygent.ledgers._rows.Rows`` in memory, for a store that is a network away.

    The store fills ``accounts``, ``own_sessions``, ``leases_of``, ``plans``, ``posted`` and ``known_ids``
    under its lock, lets the rule run, then writes what has changed in one step. What the rule asks for and
    nobody loaded is an error: it must never look like nothing used.
    """

    def __init__(self, moment_us: int = 0) -> None:
        self.moment_us = moment_us
        self.accounts: dict[str, Account | None] = {}
        self.own_sessions: dict[OwnSession, SessionRow | None] = {}
        self.leases_of: dict[str, dict[str, LeaseRow]] = {}
        self.plans: dict[str, PlanRow | None] = {}
        self.posted: dict[str, dict[str, dict[str, int]]] = defaultdict(dict)  # user, window, scope
        self.known_ids: set[str] = set()

        self.changed_accounts: dict[str, Account] = {}
        self.changed_sessions: dict[OwnSession, SessionRow] = {}
        self.changed_leases: dict[tuple[str, str], LeaseRow | None] = {}  # None: dropped
        self.new_events: list[Event] = []
        self.deltas: dict[tuple[str, str, str], int] = defaultdict(int)

    # -- what is still to be loaded ------------------------------------------------------------------------

    def plans_asked(self, requests: Iterable[LeaseRequest]) -> set[str]:
        """The plans that the rule may ask for, once the accounts are there."""
        names = {DEFAULT_PLAN, *(request.plan for request in requests if request.plan is not None)}
        assigned = (account.plan for account in self.accounts.values() if account is not None)
        return names.union(name for name in assigned if name is not None) - self.plans.keys()

    def windows_asked(self, requests: Iterable[LeaseRequest]) -> set[tuple[str, str]]:
        """The windows by user that the rule may ask for, once accounts and sessions are there."""
        asked: set[tuple[str, str]] = set()
        for request in requests:
            user_id = request.user_id
            account = self.accounts[user_id]
            period = billing_period(account.period if account is not None else None, self.moment_us)
            asked.add((user_id, period.key))
            asked.update((user_id, window) for _, window in request.keep)
            session = self.own_sessions[user_id, request.session_id or ""]
            if session is not None:
                asked.add((user_id, session_window(session.session_id, session.started_us, 0).key))
        return {(user_id, window) for user_id, window in asked if window not in self.posted[user_id]}

    # -- paygent.ledgers._rows.Rows ------------------------------------------------------------------------

    def now_us(self) -> int:
        return self.moment_us

    def account(self, user_id: str) -> Account | None:
        return self.accounts[user_id]

    def put_account(self, account: Account) -> None:
        self.accounts[account.user_id] = self.changed_accounts[account.user_id] = account

    def plan(self, name: str) -> PlanRow | None:
        return self.plans[name]

    def session(self, user_id: str, own_id: str) -> SessionRow | None:
        return self.own_sessions[user_id, own_id]

    def put_session(self, user_id: str, own_id: str, session: SessionRow) -> None:
        self.own_sessions[user_id, own_id] = self.changed_sessions[user_id, own_id] = session
        window = session_window(session.session_id, session.started_us, 0)
        if session.started_us == self.moment_us:  # it begins now, so nothing is posted to it yet
            self.posted[user_id].setdefault(window.key, {})

    def insert_events(self, events: Sequence[Event]) -> Sequence[Event]:
        new = [event for event in events if event.id not in self.known_ids]
        self.known_ids.update(event.id for event in new)
        self.new_events += new
        return new

    def add(self, deltas: Mapping[tuple[str, str, str], int]) -> None:
        for (user_id, scope, window), amount in deltas.items():
            self.deltas[user_id, scope, window] += amount
            loaded = self.posted[user_id].get(window)
            if loaded is not None:
                loaded[scope] = loaded.get(scope, 0) + amount

    def totals(self, user_id: str, windows: Collection[str]) -> dict[Bucket, int]:
        posted = self.posted[user_id]
        return {(scope, window): amount for window in windows for scope, amount in posted[window].items()}

    def leases(self, user_id: str) -> list[LeaseRow]:
        return list(self.leases_of[user_id].values())

    def put_lease(self, user_id: str, row: LeaseRow) -> None:
        self.leases_of[user_id][row.lease_id] = self.changed_leases[user_id, row.lease_id] = row

    def drop_lease(self, user_id: str, lease_id: str) -> None:
        if self.leases_of[user_id].pop(lease_id, None) is not None:
            self.changed_leases[user_id, lease_id] = None

    def sweep(self, leases_before_us: int, sessions_before_us: int) -> None:
        """Nothing: a store forgets in steps of its own, outside of the accounts' locks."""
