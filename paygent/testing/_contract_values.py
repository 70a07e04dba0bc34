"""What the contract of the ledgers is written with: plans, events and requests in few words."""

from __future__ import annotations

import itertools
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

from paygent.core.events import Event, posts
from paygent.core.models import PlanConfig
from paygent.core.plan import TOTAL_SPEND
from paygent.ledger import Bucket, LeaseReply, LeaseRequest, Ledger
from paygent.testing.clock import FakeClock

MakeLedger = Callable[[Callable[[], int]], Ledger]
USD = 10**9

T = TypeVar("T")


def plan_json(**config: Any) -> str:
    """A plan as ledgers store it."""
    return PlanConfig(**config).model_dump_json()


def event(
    reply: LeaseReply, cost_nusd: int, *, tokens: int = 0, model: str | None = "m", **more: Any
) -> Event:
    """An event of the user and in the windows of *reply*."""
    row = Event(
        id=str(uuid.uuid4()),
        user_id=reply.account.user_id,
        timestamp_us=reply.now_us,
        period=reply.period.key,
        session=reply.session.window.key if reply.session is not None else "s0:none",
        session_id=reply.session.session_id if reply.session is not None else None,
        provider="openai",
        operation="chat",
        model=model,
        request_model=model,
        response_model=model,
        input_tokens=tokens,
        output_tokens=0,
        cache_read_input_tokens=0,
        cache_write_input_tokens=0,
        reasoning_output_tokens=0,
        cost_tokens_nusd=cost_nusd,
        cost_tools_nusd=0,
        tool_calls=(),
        metadata=None,
        source="auto",
        estimated=0,
        cost_explicit=0,
        rate_source="plan",
        description=None,
    )
    return row._replace(**more)


class Process:
    """A process as the ledger sees it: one lease id, rising numbers, and what it holds."""

    def __init__(self, ledger: Ledger, user_id: str = "ada", lease_id: str | None = None) -> None:
        self.ledger = ledger
        self.user_id = user_id
        self.lease_id = lease_id or uuid.uuid4().hex
        self._seq = itertools.count(1)
        self.held: dict[Bucket, int] = {}
        self.last: LeaseRequest | None = None

    def ask(self, **changes: Any) -> LeaseReply:
        """Send one operation; *changes* are fields of the request. A call is about to be made."""
        fields: dict[str, Any] = {"begin_session": True, "held": dict(self.held), **changes}
        fields.setdefault("keep", dict(fields["held"]))
        fields.setdefault("seq", next(self._seq))
        self.last = LeaseRequest(self.user_id, self.lease_id, **fields)
        return self.ledger.lease([self.last])[0]

    def hold(self, amount: int, scope: str = TOTAL_SPEND) -> LeaseReply:
        """Ask for *amount* on *scope*; what is granted is held from then on."""
        reply = self.ask(need={scope: amount})
        if reply.denied is None:
            bucket = bucket_in(reply, scope)
            self.held[bucket] = self.held.get(bucket, 0) + amount
        return reply

    def give_back(self) -> LeaseReply:
        """Return everything."""
        self.held = {}
        return self.ask(begin_session=False)


def bucket_in(reply: LeaseReply, scope: str = TOTAL_SPEND) -> Bucket:
    """The bucket of *scope* in the running period of *reply*."""
    return scope, reply.period.key


def leased(reply: LeaseReply, scope: str = TOTAL_SPEND) -> int:
    """What *reply* leases on *scope* in the running period."""
    return reply.lease.get(bucket_in(reply, scope), 0)


def sums(events: list[Event]) -> dict[Bucket, int]:
    """The totals that *events* add up to."""
    totals: dict[Bucket, int] = defaultdict(int)
    for row in events:
        for scope, window, amount in posts(row):
            totals[scope, window] += amount
    return dict(totals)


def at_once(function: Callable[[T], None], arguments: Iterable[T]) -> None:
    """Run *function* on each of *arguments*, each in a thread of its own, all at the same time."""
    given = list(arguments)
    with ThreadPoolExecutor(len(given)) as threads:
        list(threads.map(function, given))


class LedgerCase:
    """The fixtures of the contract."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        """The machine's clock, moved by the test."""
        return FakeClock()

    @pytest.fixture
    def make_ledger(self) -> MakeLedger:
        """Override: a function of ``now_us`` that makes one more ledger object on the same, empty store."""
        raise NotImplementedError("a subclass of LedgerContract has a fixture make_ledger")

    @pytest.fixture
    def ledger(self, make_ledger: MakeLedger, clock: FakeClock) -> Ledger:
        """One ledger on the store."""
        return make_ledger(clock.now_us)

    @pytest.fixture
    def other(self, make_ledger: MakeLedger, clock: FakeClock) -> Ledger:
        """What another process has open on the same store."""
        return make_ledger(clock.now_us)

    def limit(self, ledger: Ledger, usd: float = 1.0, *, exact: bool = True, **config: Any) -> None:
        """Register the default plan with a cap on the spend of a period."""
        ledger.put_plan("default", plan_json(max_spend_per_period=usd, pre_call_estimate=exact, **config))
