"""What every row store shares: one lease operation, written over a few row accesses within a transaction."""

from __future__ import annotations

import hashlib
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
NO_PLAN = PlanRow(DEFAULT_PLAN, "none", None)


class LeaseRow(NamedTuple):
    """The lease of one process for one user; ``denied`` and ``busy`` answer a repeated request."""

    lease_id: str
    seq: int
    expires_us: int
    amounts: dict[Bucket, int]
    denied: str | None = None
    busy: bool = False


class Rows(Protocol):
    """Row accesses within one open transaction."""

    def now_us(self) -> int:
        """The ledger's own clock."""

    def account(self, user_id: str) -> Account | None: ...

    def put_account(self, account: Account) -> None: ...

    def plan(self, name: str) -> PlanRow | None: ...

    def session(self, user_id: str, own_id: str) -> tuple[str, int] | None:
        """Session id and start of the caller's session *own_id*, or of the default one (empty *own_id*)."""

    def put_session(self, user_id: str, own_id: str, session_id: str, started_us: int) -> None: ...

    def insert_events(self, events: Sequence[Event]) -> Sequence[Event]:
        """Append the events that are not there yet; returns those."""

    def add(self, deltas: Mapping[tuple[str, str, str], int]) -> None:
        """Add to totals by (user, scope, window)."""

    def totals(self, user_id: str, windows: Collection[str]) -> dict[Bucket, int]: ...

    def leases(self, user_id: str) -> list[LeaseRow]: ...

    def put_lease(self, user_id: str, row: LeaseRow) -> None: ...

    def drop_lease(self, user_id: str, lease_id: str) -> None: ...


def plan_key(config: str) -> str:
    """The version of a plan: a digest of its content."""
    return hashlib.sha256(config.encode()).hexdigest()[:16]


@lru_cache(maxsize=1024)
def compiled(plan: PlanRow) -> CompiledPlan:
    """Compile a stored plan, once per content."""
    return compile_plan(plan.name, PlanConfig.model_validate_json(plan.config or "{}"))


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
    """Apply the operations of many users; accounts are taken in sorted order, so that no two wait crosswise."""
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
    account = rows.account(request.user_id)
    if account is None:
        account = Account(request.user_id)
        if request.begin_session or request.events:
            rows.put_account(account)
    if request.plan is not None and request.plan != account.plan and rows.plan(request.plan) is not None:
        account = account._replace(plan=request.plan, own_config=None)
        rows.put_account(account)
    plan = plan_of(rows, account)
    terms = compiled(plan)
    period = billing_period(account.period, now_us)
    session = _session(rows, request, terms, now_us)
    windows = {period.key, *(window for _, window in request.keep)}
    if session is not None:
        windows.add(session.window.key)
    mine, others, sharers = _live_leases(rows, request, now_us)
    reply = LeaseReply(
        account=account,
        plan=plan,
        period=period,
        session=session,
        posted=rows.totals(request.user_id, windows),
        others=others,
        sharers=sharers,
        contended=account.contended_us > now_us,
        now_us=now_us,
    )
    if mine is not None and request.seq <= mine.seq:
        reply.lease, reply.denied, reply.busy = mine.amounts, mine.denied, mine.busy
        return reply
    # An expired lease has lost its idle part; its open holds are money being spent, room or not.
    reply.lease = dict(request.keep if mine is not None else request.held)
    _grant(request, terms, reply)
    if reply.denied is not None and reply.busy:
        rows.put_account(account._replace(contended_us=now_us + CONTENDED_US))
    _store(rows, request, reply, now_us)
    return reply


def _session(rows: Rows, request: LeaseRequest, plan: CompiledPlan, now_us: int) -> Session | None:
    """The running session; a new one begins where a call is about to be made and none is running."""
    own_id = request.session_id or ""
    row = rows.session(request.user_id, own_id)
    if row is not None:
        window = session_window(row[0], row[1], plan.session_timeout_s)
        if window.start_us <= now_us < window.end_us:
            return Session(row[0], window)
    if not request.begin_session:
        return None
    session_id = own_id or str(uuid.uuid4())
    rows.put_session(request.user_id, own_id, session_id, now_us)
    return Session(session_id, session_window(session_id, now_us, plan.session_timeout_s))


def _live_leases(
    rows: Rows, request: LeaseRequest, now_us: int
) -> tuple[LeaseRow | None, dict[Bucket, int], int]:
    """This process's lease, the sum of the others, and how many there are; expired ones are dropped."""
    mine: LeaseRow | None = None
    others: dict[Bucket, int] = defaultdict(int)
    sharers = 1
    for row in rows.leases(request.user_id):
        # One further ahead than a lease ever lives was written before the clock was set back.
        if not now_us < row.expires_us <= now_us + LEASE_TTL_US:
            rows.drop_lease(request.user_id, row.lease_id)
        elif row.lease_id == request.lease_id:
            mine = row
        else:
            sharers += 1
            for bucket, amount in row.amounts.items():
                others[bucket] += amount
    return mine, dict(others), sharers


def _grant(request: LeaseRequest, plan: CompiledPlan, reply: LeaseReply) -> None:
    """Grant the need of the request, or the slice it wants, into ``reply.lease``."""
    scopes = request.need or request.want
    if not scopes:
        return
    balances = {
        scope: Balance(
            limit=plan.limit_of(scope).hard,
            posted=reply.posted.get(bucket, 0),
            held=reply.others.get(bucket, 0) + reply.lease.get(bucket, 0),
        )
        for scope in scopes
        if (bucket := bucket_of(scope, reply.period, reply.session)) is not None
    }
    if request.need:
        outcome = reserve(balances, request.need, exact=plan.exact, sharers=reply.sharers)
        if isinstance(outcome, Denied):
            reply.denied, reply.busy = outcome.scope, outcome.busy
            return
        granted: Mapping[str, int] = outcome.amounts
    else:
        granted = {
            scope: share(balances[scope].room, amount, reply.sharers)
            for scope, amount in request.want.items()
            if scope in balances and plan.limit_of(scope).hard < UNLIMITED
        }
    for scope, amount in granted.items():
        bucket = bucket_of(scope, reply.period, reply.session)
        if bucket is not None:
            reply.lease[bucket] = reply.lease.get(bucket, 0) + amount


def bucket_of(scope: str, period: Window, session: Session | None) -> Bucket | None:
    """The bucket of *scope* in the running windows."""
    if scope != SESSION_SPEND:
        return scope, period.key
    return (scope, session.window.key) if session is not None else None


def _store(rows: Rows, request: LeaseRequest, reply: LeaseReply, now_us: int) -> None:
    reply.lease = {bucket: amount for bucket, amount in reply.lease.items() if amount > 0}
    if reply.lease:
        row = LeaseRow(
            request.lease_id, request.seq, now_us + LEASE_TTL_US, reply.lease, reply.denied, reply.busy
        )
        rows.put_lease(request.user_id, row)
    else:
        rows.drop_lease(request.user_id, request.lease_id)
