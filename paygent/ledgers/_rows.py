"""What every row store shares: one lease operation, written over a few row accesses within a transaction."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

from paygent.core.balance import UNLIMITED, Balance, Denied, reserve, share
from paygent.core.events import Event, posts
from paygent.core.models import PlanConfig
from paygent.core.plan import SESSION_SPEND, CompiledPlan, compile_plan
from paygent.core.windows import Window, billing_period, session_window
from paygent.ledger import (
    DEFAULT_PLAN,
    LEASE_TTL_S,
    Account,
    Bucket,
    LeaseReply,
    LeaseRequest,
    PlanRow,
    Session,
)

LEASE_TTL_US = int(LEASE_TTL_S * 1_000_000)
CONTENDED_US = 1_000_000
SWEEP_EVERY_US = 60_000_000
SESSIONS_KEPT_US = 86_400_000_000  # after their end, for a clock that is set back and a plan that stretches
NO_PLAN = PlanRow(DEFAULT_PLAN, "none", None)


class LeaseRow(NamedTuple):
    """The lease of one process for one user; ``denied`` and ``busy`` answer a repeated request."""

    lease_id: str
    seq: int
    expires_us: int
    amounts: dict[Bucket, int]
    denied: str | None = None
    busy: bool = False


class SessionRow(NamedTuple):
    """A session as stored; ``ends_us`` is when it may be forgotten, should no longer plan stretch it."""

    session_id: str
    started_us: int
    ends_us: int


class Rows(Protocol):
    """Row accesses within one open transaction."""

    def now_us(self) -> int:
        """The ledger's own clock."""

    def account(self, user_id: str) -> Account | None: ...

    def put_account(self, account: Account) -> None: ...

    def plan(self, name: str) -> PlanRow | None: ...

    def session(self, user_id: str, own_id: str) -> SessionRow | None:
        """The caller's session *own_id*, or the default one (empty *own_id*), running or not."""

    def put_session(self, user_id: str, own_id: str, session: SessionRow) -> None: ...

    def insert_events(self, events: Sequence[Event]) -> Sequence[Event]:
        """Append the events that are not there yet; returns those."""

    def add(self, deltas: Mapping[tuple[str, str, str], int]) -> None:
        """Add to totals by (user, scope, window)."""

    def totals(self, user_id: str, windows: Collection[str]) -> dict[Bucket, int]: ...

    def leases(self, user_id: str) -> list[LeaseRow]: ...

    def put_lease(self, user_id: str, row: LeaseRow) -> None: ...

    def drop_lease(self, user_id: str, lease_id: str) -> None: ...

    def sweep(self, leases_before_us: int, sessions_before_us: int) -> None:
        """Forget leases that expired and sessions that ended before those moments."""


@lru_cache(maxsize=1024)
def plan_key(config: str) -> str:
    """The version of a plan: a digest of its content, whatever the order in which it is written."""
    return hashlib.sha256(json.dumps(json.loads(config), sort_keys=True).encode()).hexdigest()[:16]


@lru_cache(maxsize=1024)
def compiled(plan: PlanRow) -> CompiledPlan:
    """Compile a stored plan, once per content; what a newer version may have added to it is left out."""
    return compile_plan(plan.name, PlanConfig.from_backend(json.loads(plan.config or "{}")))


def post_events(rows: Rows, events: Iterable[Event]) -> int:
    """Append what is new and add it to the totals, in one step; returns how many were new."""
    distinct = {event.id: event for event in events}
    new = rows.insert_events(list(distinct.values())) if distinct else ()
    deltas: dict[tuple[str, str, str], int] = defaultdict(int)
    for event in new:
        for scope, window, amount in posts(event):
            deltas[event.user_id, scope, window] += amount
    if deltas:
        rows.add(deltas)
    return len(new)


def apply_leases(rows: Rows, requests: Sequence[LeaseRequest]) -> list[LeaseReply]:
    """Apply the operations of many users; accounts in sorted order, so that no two stores wait crosswise."""
    post_events(rows, (event for request in requests for event in request.events))
    order = sorted(range(len(requests)), key=lambda i: (requests[i].user_id, requests[i].seq))
    replies: dict[int, LeaseReply] = {i: _apply(rows, requests[i]) for i in order}
    return [replies[i] for i in range(len(requests))]


def plan_of(rows: Rows, account: Account) -> PlanRow:
    """The plan that binds a user: his own, else the assigned one, else the one named ``default``."""
    if account.own_config is not None:
        return PlanRow(account.plan or DEFAULT_PLAN, plan_key(account.own_config), account.own_config)
    if account.plan is not None:
        return rows.plan(account.plan) or PlanRow(account.plan, "none", None)
    return rows.plan(DEFAULT_PLAN) or NO_PLAN


def _apply(rows: Rows, request: LeaseRequest) -> LeaseReply:
    now_us = rows.now_us()
    mine, others, sharers = _live_leases(rows, request, now_us)
    repeats = mine is not None and request.seq <= mine.seq
    account = _account(rows, request, moves=not repeats)
    plan = plan_of(rows, account)
    terms = compiled(plan)
    period = billing_period(account.period, now_us)
    session = _session(rows, request, terms, now_us)
    reply = LeaseReply(
        account=account,
        plan=plan,
        period=period,
        session=session,
        posted=rows.totals(request.user_id, _windows(request, period, session)),
        others=others,
        sharers=sharers,
        contended=0 < account.contended_us - now_us <= CONTENDED_US,
        now_us=now_us,
    )
    if mine is not None and repeats:
        reply.lease = dict(mine.amounts)
        if request.seq == mine.seq:
            reply.denied, reply.busy = mine.denied, mine.busy
        return reply
    reply.lease = _kept(request, mine)
    _grant(request, terms, reply)
    if reply.denied is not None and reply.busy and not reply.contended:
        rows.put_account(account._replace(contended_us=now_us + CONTENDED_US))
    _store(rows, request, reply, is_known=mine is not None)
    return reply


def _account(rows: Rows, request: LeaseRequest, *, moves: bool) -> Account:
    """The account of a request, moved to the plan that it asks for, if that is registered."""
    account = rows.account(request.user_id)
    if account is None:
        account = Account(request.user_id)
        if request.begin_session or request.events:
            rows.put_account(account)
    if moves and request.plan not in (None, account.plan) and rows.plan(request.plan or "") is not None:
        account = account._replace(plan=request.plan, own_config=None)
        rows.put_account(account)
    return account


def _windows(request: LeaseRequest, period: Window, session: Session | None) -> set[str]:
    windows = {period.key, *(window for _, window in request.keep)}
    return windows if session is None else {*windows, session.window.key}


def _session(rows: Rows, request: LeaseRequest, plan: CompiledPlan, now_us: int) -> Session | None:
    """The running session; a new one begins where a call is about to be made and none is running."""
    own_id = request.session_id or ""
    row = rows.session(request.user_id, own_id)
    if row is not None:
        window = session_window(row.session_id, row.started_us, plan.session_timeout_s)
        length_us = window.end_us - window.start_us
        # A clock that is set back a little ends no session; one set back by far more must not stretch it.
        if window.start_us - length_us < now_us < window.end_us:
            if window.end_us > row.ends_us:  # the plan now grants longer sessions
                rows.put_session(request.user_id, own_id, row._replace(ends_us=window.end_us))
            return Session(row.session_id, window)
    if not request.begin_session:
        return None
    session_id = own_id or str(uuid.uuid4())
    window = session_window(session_id, now_us, plan.session_timeout_s)
    rows.put_session(request.user_id, own_id, SessionRow(session_id, now_us, window.end_us))
    return Session(session_id, window)


def _live_leases(
    rows: Rows, request: LeaseRequest, now_us: int
) -> tuple[LeaseRow | None, dict[Bucket, int], int]:
    """This process's lease, the sum of the others, and how many hold one; expired ones are dropped."""
    mine: LeaseRow | None = None
    others: dict[Bucket, int] = defaultdict(int)
    sharers = 1
    for row in rows.leases(request.user_id):
        if row.expires_us <= now_us:
            rows.drop_lease(request.user_id, row.lease_id)
            continue
        if row.expires_us > now_us + LEASE_TTL_US:  # the clock was set back: it lives no longer for that
            rows.put_lease(request.user_id, row._replace(expires_us=now_us + LEASE_TTL_US))
        if row.lease_id == request.lease_id:
            mine = row
        elif row.amounts:
            sharers += 1
            for bucket, amount in row.amounts.items():
                others[bucket] += amount
    return mine, dict(others), sharers


def _kept(request: LeaseRequest, mine: LeaseRow | None) -> dict[Bucket, int]:
    """
    The lease before a grant: what is kept, and never more idle than there was.

    Open holds count, room or not: that money is being spent. An expired lease has lost its idle part.
    """
    stored = mine.amounts if mine is not None else {}
    return {
        bucket: min(amount, max(request.held.get(bucket, 0), stored.get(bucket, 0)))
        for bucket, amount in request.keep.items()
    }


def _grant(request: LeaseRequest, plan: CompiledPlan, reply: LeaseReply) -> None:
    """
    Grant the need of the request, or the slice it wants, into ``reply.lease``.

    What the process itself keeps idle counts as room; only its open holds do not. A slice that is wanted
    is the whole of what is idle afterwards, not one on top of what was.
    """
    scopes = request.need or request.want
    buckets = {scope: bucket_of(scope, reply.period, reply.session) for scope in scopes}
    balances = {
        scope: Balance(
            limit=plan.limit_of(scope).hard,
            posted=reply.posted.get(bucket, 0),
            held=reply.others.get(bucket, 0) + request.held.get(bucket, 0),
        )
        for scope, bucket in buckets.items()
        if bucket is not None
    }
    granted: Mapping[str, int] = {}
    if request.need:
        outcome = reserve(balances, request.need, exact=plan.exact, sharers=reply.sharers)
        if isinstance(outcome, Denied):
            reply.denied, reply.busy = outcome.scope, outcome.busy
        else:
            granted = outcome.amounts
    else:
        granted = {
            scope: share(balances[scope].room, amount, reply.sharers)
            for scope, amount in request.want.items()
            if scope in balances and balances[scope].limit < UNLIMITED
        }
    for scope, amount in granted.items():
        bucket = buckets[scope]
        assert bucket is not None
        reply.lease[bucket] = max(reply.lease.get(bucket, 0), request.held.get(bucket, 0) + amount)


def bucket_of(scope: str, period: Window, session: Session | None) -> Bucket | None:
    """The bucket of *scope* in the running windows."""
    if scope != SESSION_SPEND:
        return scope, period.key
    return (scope, session.window.key) if session is not None else None


def _store(rows: Rows, request: LeaseRequest, reply: LeaseReply, *, is_known: bool) -> None:
    """
    Store the lease, also an empty one that has something to remember.

    A repeat of this operation is answered from it, and an earlier one that arrives late changes nothing. It
    goes when it expires.
    """
    reply.lease = {bucket: amount for bucket, amount in reply.lease.items() if amount > 0}
    if reply.lease or is_known or reply.denied is not None:
        expires_us = reply.now_us + LEASE_TTL_US
        row = LeaseRow(request.lease_id, request.seq, expires_us, reply.lease, reply.denied, reply.busy)
        rows.put_lease(request.user_id, row)


class Sweeper:
    """Once a minute, what nobody asks for any more is forgotten: a table must not grow for ever."""

    def __init__(self) -> None:
        self._last_us = 0

    def sweep(self, rows: Rows) -> None:
        """Sweep if it is time to."""
        now_us = rows.now_us()
        if abs(now_us - self._last_us) >= SWEEP_EVERY_US:
            self._last_us = now_us
            rows.sweep(now_us, now_us - SESSIONS_KEPT_US)
