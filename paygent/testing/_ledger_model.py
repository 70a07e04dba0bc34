"""
What a ledger promises, as a small model: accounts, sessions, leases and totals in plain dictionaries.

It states the rules a second time, in the shortest way and on its own, so that a ledger (and the rule that
ledgers share) can be compared with it, reply by reply. It is the reference of the contract's random walks and
of the simulator; it is no ledger, and nothing else uses it.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

from paygent.core.events import Event
from paygent.core.windows import calendar_month
from paygent.ledger import Account, Bucket, LeaseReply, LeaseRequest

TTL_US = 30_000_000
CONTENDED_US = 1_000_000
SLICE = 64
NO_LIMITS: Mapping[str, int] = {}


class Terms(NamedTuple):
    """A plan: hard limits by scope (a scope that is missing has none), the mode, the length of a session."""

    limits: Mapping[str, int]
    exact: bool
    session_us: int


class Span(NamedTuple):
    """A window, without its key."""

    start_us: int
    end_us: int


class Told(NamedTuple):
    """A reply in the form in which model and ledger are compared; amounts of nothing are left out."""

    plan: str
    config: str | None
    period: Span
    session: tuple[str, Span] | None
    posted: dict[Bucket, int]
    lease: dict[Bucket, int]
    others: dict[Bucket, int]
    sharers: int
    denied: str | None
    busy: bool
    contended: bool


@dataclass
class Lease:
    """A lease as the model keeps it."""

    seq: int
    expires_us: int
    amounts: dict[Bucket, int]
    denied: str | None = None
    busy: bool = False


@lru_cache(maxsize=1024)
def terms(config: str | None) -> Terms:
    """The limits that a plan (JSON, or None for none at all) sets."""
    plan = json.loads(config or "{}")
    share = Decimal(str(plan.get("hard_gate_at", 1.0)))
    limits = {
        f"model_limit:{model}": math.floor(limit["max_tokens_per_period"] * share)
        for model, limit in plan.get("model_limits", {}).items()
        if limit["max_tokens_per_period"] is not None
    }
    for scope, name in (("total_spend", "max_spend_per_period"), ("session_spend", "max_spend_per_session")):
        cap = plan.get(name)
        if cap is not None and not math.isinf(float(cap)):
            limits[scope] = math.floor(Decimal(str(cap)) * share * 10**9)
    session_us = int(plan.get("session_timeout_minutes", 30) * 60_000_000)
    return Terms(limits, bool(plan.get("pre_call_estimate", False)), session_us)


def told(reply: LeaseReply) -> Told:
    """A ledger's reply in the form in which it is compared."""
    session = reply.session
    return Told(
        plan=reply.plan.name,
        config=reply.plan.config,
        period=Span(reply.period.start_us, reply.period.end_us),
        session=session and (session.session_id, Span(session.window.start_us, session.window.end_us)),
        posted=some(reply.posted),
        lease=some(reply.lease),
        others=some(reply.others),
        sharers=reply.sharers,
        denied=reply.denied,
        busy=reply.busy,
        contended=reply.contended,
    )


def some(amounts: Mapping[Bucket, int]) -> dict[Bucket, int]:
    """*amounts* without those of nothing."""
    return {bucket: amount for bucket, amount in amounts.items() if amount}


class LedgerModel:
    """The store, and one method for each operation that changes it."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.plans: dict[str, str] = {}
        self.sessions: dict[tuple[str, str], tuple[str, int]] = {}
        self.events: dict[str, Event] = {}
        self.totals: dict[str, dict[Bucket, int]] = defaultdict(lambda: defaultdict(int))
        self.leases: dict[str, dict[str, Lease]] = defaultdict(dict)

    def put_plan(self, name: str, config: str) -> None:
        """Register a plan; equal content changes nothing, not even the text."""
        if name not in self.plans or json.loads(self.plans[name]) != json.loads(config):
            self.plans[name] = config

    def put_account(self, user_id: str, changes: Mapping[str, Any]) -> None:
        """Change an account."""
        self.accounts[user_id] = self.account(user_id)._replace(**changes)

    def account(self, user_id: str) -> Account:
        """The account of a user, known or not."""
        return self.accounts.get(user_id, Account(user_id))

    def post(self, events: Iterable[Event]) -> list[Event]:
        """Count what is new; returns it."""
        new = {event.id: event for event in events if event.id not in self.events}
        self.events.update(new)
        for event in new.values():
            totals = self.totals[event.user_id]
            cost = event.cost_tokens_nusd + event.cost_tools_nusd
            totals["total_spend", event.period] += cost
            totals["session_spend", event.session] += cost
            if event.model is not None:
                totals["model_limit:" + event.model, event.period] += event.input_tokens + event.output_tokens
                totals["model_cost:" + event.model, event.period] += cost
        return list(new.values())

    def settle(self, events: Iterable[Event], close: Iterable[str] = ()) -> list[Event]:
        """Post events and drop leases; returns what was new."""
        for lease_id in close:
            for leases in self.leases.values():
                leases.pop(lease_id, None)
        return self.post(events)

    def lease(self, requests: Sequence[LeaseRequest], replies: Sequence[LeaseReply]) -> list[Told]:
        """
        What a ledger must have replied to *requests*.

        Args:
            requests: As they were sent.
            replies: What the ledger said. The model takes the time of the operation from them, and the
                names of the sessions that began.
        """
        self.post(event for request in requests for event in request.events)
        order = sorted(range(len(requests)), key=lambda i: (requests[i].user_id, requests[i].seq))
        answers = {i: self._apply(requests[i], replies[i]) for i in order}
        return [answers[i] for i in range(len(requests))]

    def plan_of(self, account: Account) -> tuple[str, str | None]:
        """Name and content of the plan that binds a user."""
        name = account.plan or "default"
        return name, account.own_config if account.own_config is not None else self.plans.get(name)

    def live(self, user_id: str, now_us: int) -> dict[str, Lease]:
        """The leases that have not expired; the others are forgotten."""
        leases = self.leases[user_id]
        for lease_id, lease in tuple(leases.items()):
            if lease.expires_us <= now_us:
                del leases[lease_id]
            lease.expires_us = min(lease.expires_us, now_us + TTL_US)
        return leases

    # -- one operation --------------------------------------------------------------------------------

    def _apply(self, request: LeaseRequest, reply: LeaseReply) -> Told:
        now_us, user_id = reply.now_us, request.user_id
        leases = self.live(user_id, now_us)
        mine = leases.get(request.lease_id)
        repeats = mine is not None and request.seq <= mine.seq
        account = self.account(user_id)
        if not repeats and request.plan not in (None, account.plan) and request.plan in self.plans:
            account = self.accounts[user_id] = account._replace(plan=request.plan, own_config=None)
        name, config = self.plan_of(account)
        period = _period(account.period, now_us)
        session = self._session(request, terms(config).session_us, now_us, reply)
        windows = {f"p{period.start_us}", _session_key(session), *(window for _, window in request.keep)}
        others: dict[Bucket, int] = defaultdict(int)
        holders = [lease for lease_id, lease in leases.items() if lease_id != request.lease_id]
        for lease in holders:
            for bucket, amount in lease.amounts.items():
                others[bucket] += amount
        answer = Told(
            plan=name,
            config=config,
            period=period,
            session=session,
            posted=some({b: n for b, n in self.totals[user_id].items() if b[1] in windows}),
            lease={},
            others=dict(others),
            sharers=1 + sum(bool(lease.amounts) for lease in holders),
            denied=None,
            busy=False,
            contended=0 < account.contended_us - now_us <= CONTENDED_US,
        )
        if mine is not None and repeats:
            same = request.seq == mine.seq
            denied, busy = (mine.denied, mine.busy) if same else (None, False)
            return answer._replace(lease=dict(mine.amounts), denied=denied, busy=busy)
        answer = self._granted(request, mine, answer, terms(config))
        if answer.busy and not answer.contended:
            self.accounts[user_id] = account._replace(contended_us=now_us + CONTENDED_US)
        if answer.lease or mine is not None or answer.denied is not None:
            leases[request.lease_id] = Lease(
                request.seq, now_us + TTL_US, answer.lease, answer.denied, answer.busy
            )
        return answer

    def _session(
        self, request: LeaseRequest, length_us: int, now_us: int, reply: LeaseReply
    ) -> tuple[str, Span] | None:
        """The running session; one that begins takes the name that the ledger gave it."""
        own_id = request.session_id or ""
        known = self.sessions.get((request.user_id, own_id))
        if known is not None and known[1] - length_us < now_us < known[1] + length_us:
            return known[0], Span(known[1], known[1] + length_us)
        if not request.begin_session:
            return None
        assert reply.session is not None
        name = own_id or reply.session.session_id
        self.sessions[request.user_id, own_id] = name, now_us
        return name, Span(now_us, now_us + length_us)

    def _granted(self, request: LeaseRequest, mine: Lease | None, answer: Told, plan: Terms) -> Told:
        """The rule of the gate: what is kept, then the need of one call and a slice on top, or the slice."""
        had = mine.amounts if mine is not None else {}
        held = request.held
        lease = {b: min(n, max(held.get(b, 0), had.get(b, 0))) for b, n in request.keep.items()}
        spent, busy, grants = [], [], {}
        for scope, amount in (request.need or request.want).items():
            window = (
                _session_key(answer.session) if scope == "session_spend" else f"p{answer.period.start_us}"
            )
            if scope not in plan.limits or not window:
                continue
            bucket = (scope, window)
            left = plan.limits[scope] - answer.posted.get(bucket, 0)
            room = left - answer.others.get(bucket, 0) - held.get(bucket, 0)
            whole = amount if plan.exact else 1
            if request.need and (left <= 0 or left < whole):
                spent.append(scope)
            elif request.need and (room <= 0 or room < whole):
                busy.append(scope)
            need = amount if request.need else 0
            share = max(0, min(SLICE * amount, (room - need) // (2 * answer.sharers)))
            grants[bucket] = max(lease.get(bucket, 0), held.get(bucket, 0) + need + share)
        if spent or busy:
            return answer._replace(lease=some(lease), denied=(spent or busy)[0], busy=not spent)
        return answer._replace(lease=some({**lease, **grants}))


def _period(assigned: tuple[int, int] | None, now_us: int) -> Span:
    """The assigned period, rolled on by its own length; else the calendar month."""
    if assigned is None:
        month = calendar_month(now_us)
        return Span(month.start_us, month.end_us)
    start_us, end_us = assigned
    while now_us >= end_us:
        start_us, end_us = end_us, end_us + (end_us - start_us)
    while now_us < start_us:
        start_us, end_us = start_us - (end_us - start_us), start_us
    return Span(start_us, end_us)


def _session_key(session: tuple[str, Span] | None) -> str:
    return f"s{session[1].start_us}:{session[0]}" if session is not None else ""
