"""Random walks over a ledger, every reply of which is compared with a small model."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from paygent.core.events import Event
from paygent.core.plan import MODEL_LIMIT, SESSION_SPEND, TOTAL_SPEND
from paygent.ledger import LeaseReply, LeaseRequest, Ledger
from paygent.testing._contract_values import LedgerCase, event, plan_json
from paygent.testing._ledger_model import LedgerModel, some, told
from paygent.testing.clock import FakeClock

MINUTE_US = 60_000_000
_walks = itertools.count(1)

Holder = tuple[int, int]  # a process and a user

processes = st.integers(0, 2)
users = st.integers(0, 1)
percents = st.sampled_from([100, 0, 50])
needs = st.none() | st.sampled_from([40, 1, 0, 700, 5000])
scopes = st.sampled_from(
    [
        (TOTAL_SPEND, SESSION_SPEND),
        (TOTAL_SPEND, SESSION_SPEND, MODEL_LIMIT + "m"),
        (MODEL_LIMIT + "m",),
    ]
)
amounts = st.lists(st.sampled_from([0, 1, 30, 400, 900]), max_size=3)
plans = st.builds(
    plan_json,
    max_spend_per_period=st.sampled_from([1e-6, 2e-5, 0.0, None]),
    max_spend_per_session=st.sampled_from([None, 8e-7, 1e-5]),
    hard_gate_at=st.sampled_from([1.0, 0.9]),
    model_limits=st.sampled_from([{}, {"m": {"max_tokens_per_period": 700}}]),
    session_timeout_minutes=st.sampled_from([30.0, 1.0]),
    pre_call_estimate=st.booleans(),
)


class LedgerWalk(RuleBasedStateMachine):
    """
    Three processes and two users, who ask for anything, in any order, twice and too late.

    Each walk has users and plans of its own, so that many walks may share one store.
    """

    def __init__(self, ledger: Ledger, clock: FakeClock | None) -> None:
        super().__init__()
        self.ledger = ledger
        self.clock = clock
        self.model = LedgerModel()
        walk = next(_walks)
        self.users = [f"walk{walk}-{name}" for name in ("ada", "bob")]
        self.pro = f"walk{walk}-pro"
        self.leases = [f"walk{walk}-process{number}" for number in range(3)]
        self.seq = itertools.count(10)
        self.last: dict[Holder, tuple[LeaseRequest, LeaseReply]] = {}
        self.events: list[Event] = []
        self.put_plan("default", plan_json(max_spend_per_period=2e-5))

    # -- lease operations -----------------------------------------------------------------------------

    @rule(
        process=processes,
        user=users,
        held=percents,
        kept=st.sampled_from([100, 0, 130]),
        need=needs,
        of=scopes,
        wants=st.booleans(),
        costs=amounts,
        more=st.fixed_dictionaries(
            {
                "session_id": st.sampled_from([None, None, "own"]),
                "begin_session": st.booleans(),
                "plan": st.sampled_from([None, None, None, "pro", "nowhere"]),
            }
        ),
    )
    def ask(
        self,
        process: int,
        user: int,
        held: int,
        kept: int,
        need: int | None,
        of: tuple[str, ...],
        wants: bool,
        costs: list[int],
        more: dict[str, Any],
    ) -> None:
        """One operation: something is posted, something kept, something asked for."""
        request = LeaseRequest(self.users[user], self.leases[process], next(self.seq), **more)
        request.plan = self.pro if request.plan == "pro" else request.plan
        known = self.last.get((process, user))
        if known is not None:
            lease = known[1].lease
            request.held = {bucket: amount * held // 100 for bucket, amount in lease.items()}
            request.keep = {b: max(request.held[b], amount * kept // 100) for b, amount in lease.items()}
            request.events = [self._event(known[1], cost) for cost in costs]
        if need is not None and wants:
            request.want = dict.fromkeys(of, need)
        elif need is not None:
            request.need = dict.fromkeys(of, need)
        (self.last[process, user],) = self._send([request])

    def _event(self, reply: LeaseReply, cost: int) -> Event:
        """A new event, in the windows of *reply*; now and then one that is known already."""
        if cost == 1 and self.events:
            known = self.events[len(self.events) // 2]
            if known.user_id == reply.account.user_id:
                return known
        row = event(reply, cost, tokens=cost, model="m" if cost % 400 else None)
        self.events.append(row)
        return row

    @rule(process=processes, user=users)
    def ask_again(self, process: int, user: int) -> None:
        """An operation arrives twice."""
        if (process, user) in self.last:
            self._send([self.last[process, user][0]])

    @rule(process=processes, user=users, need=needs, cost=amounts)
    def arrive_late(self, process: int, user: int, need: int | None, cost: list[int]) -> None:
        """An operation arrives after others of its process; what it posts may be new."""
        if (process, user) in self.last:
            request, reply = self.last[process, user]
            late = replace(request, seq=request.seq - 5, events=[self._event(reply, n) for n in cost])
            self._send([replace(late, need={} if need is None else {TOTAL_SPEND: need})])

    @rule(process=processes, need=st.sampled_from([40, 1, 700]))
    def ask_for_both(self, process: int, need: int) -> None:
        """One operation on the leases of two users."""
        requests = [
            LeaseRequest(user, self.leases[process], next(self.seq), begin_session=True)
            for user in reversed(self.users)
        ]
        for request in requests:
            request.need = {TOTAL_SPEND: need, SESSION_SPEND: need}
        for number, sent in zip((1, 0), self._send(requests), strict=True):
            self.last[process, number] = sent

    def _send(self, requests: list[LeaseRequest]) -> list[tuple[LeaseRequest, LeaseReply]]:
        replies = self.ledger.lease(requests)
        answers = self.model.lease(requests, replies)
        for request, reply, answer in zip(requests, replies, answers, strict=True):
            if self.clock is not None:
                assert reply.now_us == self.clock.now_us()
            assert told(reply) == answer
            account = self.model.account(request.user_id)
            assert reply.account[:5] == account[:5]
            assert all(amount >= 0 for amount in reply.lease.values())
        return list(zip(requests, replies, strict=True))

    # -- everything else ------------------------------------------------------------------------------

    @rule(process=st.none() | processes, user=users, costs=amounts)
    def settle(self, process: int | None, user: int, costs: list[int]) -> None:
        """Events come in apart from an operation; a process may be dead."""
        reply = self.last[0, user][1] if (0, user) in self.last else None
        events = [self._event(reply, cost) for cost in costs] if reply is not None else []
        close = [] if process is None else [self.leases[process]]
        assert self.ledger.settle(events, close) == len(self.model.settle(events, close))

    @rule(config=plans, is_pro=st.booleans())
    def configure(self, config: str, is_pro: bool) -> None:
        """A plan changes."""
        self.put_plan(self.pro if is_pro else "default", config)

    def put_plan(self, name: str, config: str) -> None:
        """Register a plan in the ledger and the model."""
        self.ledger.put_plan(name, config)
        self.model.put_plan(name, config)

    @rule(user=users, plan=st.sampled_from([None, "pro", "default"]), own=st.none() | plans)
    def move(self, user: int, plan: str | None, own: str | None) -> None:
        """A user gets another plan, or limits of his own."""
        changes = {"plan": self.pro if plan == "pro" else plan, "own_config": own}
        self._put_account(user, changes)

    @rule(user=users, minutes=st.sampled_from([1, 3, 600]), ago=st.integers(0, 5))
    def begin_period(self, user: int, minutes: int, ago: int) -> None:
        """A billing period is assigned; one that is over rolls on."""
        now_us = self.clock.now_us() if self.clock is not None else self._now_us()
        start_us = now_us - ago * MINUTE_US
        self._put_account(user, {"period": (start_us, start_us + minutes * MINUTE_US)})

    def _now_us(self) -> int:
        """What the ledger last said."""
        return max((reply.now_us for _, reply in self.last.values()), default=0)

    def _put_account(self, user: int, changes: dict[str, Any]) -> None:
        self.ledger.put_account(self.users[user], changes)
        self.model.put_account(self.users[user], changes)

    @rule(seconds=st.sampled_from([0.3, 1.2, 9.0, 29.9, 61.0, 400.0]))
    def let_time_pass(self, seconds: float) -> None:
        """Time passes, where it is ours to say."""
        if self.clock is not None:
            self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([-0.5, -20.0, -1900.0]))
    def set_back(self, seconds: float) -> None:
        """The clock is set back; what has expired by then is forgotten."""
        if self.clock is not None:
            for user in self.users:
                self._send([LeaseRequest(user, "nobody", next(self.seq))])
            self.clock.set_wall(seconds)

    # -- what always holds ----------------------------------------------------------------------------

    @invariant()
    def totals_are_those_of_the_model(self) -> None:
        """Totals are what the events add up to, each counted once."""
        for user in self.users:
            assert some(self.ledger.totals(user)) == some(self.model.totals[user])

    def teardown(self) -> None:
        """Every event is one row."""
        for user in self.users:
            rows = self.ledger.events(user, limit=10_000)
            known = sorted(row.id for row in self.model.events.values() if row.user_id == user)
            assert sorted(row.id for row in rows) == known


class WalksContract(LedgerCase):
    """
    Random walks; a part of the contract that needs Hypothesis.

    ``walks`` and ``steps`` say how many and how long. A store whose clock is not the one handed to
    ``make_ledger`` sets ``clock_is_ours`` to false: no time is then made to pass.
    """

    walks = 300
    steps = 40
    clock_is_ours = True

    def test_random_walks_agree_with_the_model(self, ledger: Ledger, clock: FakeClock) -> None:
        """Whatever processes ask for, in whatever order, each reply is the one that the model gives."""
        options = settings(
            max_examples=self.walks,
            stateful_step_count=self.steps,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        ours = clock if self.clock_is_ours else None

        class Walk(LedgerWalk):
            def __init__(self) -> None:
                super().__init__(ledger, ours)

        run_state_machine_as_test(Walk, settings=options)
