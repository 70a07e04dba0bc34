"""A fleet in one thread: real engines on one ledger, driven by hand through whatever may happen."""

import os
from collections import defaultdict

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from paygent import PaygentLimitExceeded, PlanConfig
from paygent.context import Payer
from paygent.core.balance import UNLIMITED
from paygent.core.plan import SESSION_SPEND, TOTAL_SPEND
from paygent.core.usage import Usage
from paygent.ledger import LEASE_TTL_S
from paygent.ledgers._rows import compiled, plan_of
from paygent.ledgers.memory import MemoryLedger, _MemoryRows
from paygent.meter.call import State
from paygent.meter.meter import Meter, Options
from paygent.testing._contract_values import sums
from paygent.testing.clock import FakeClock

TOKEN = 1_000_000  # nano-dollars
USERS = ("ada", "bob")
CAPS = st.sampled_from([1000, 2000, 500, 200, 60, 0])  # tokens
MORE_CAPS = st.sampled_from([1000, 500, 2000, 150])


class Fleet(RuleBasedStateMachine):
    """Several processes, each with its own engine; time moves for all of them, but one may be asleep."""

    @initialize(
        exact=st.booleans(),
        processes=st.sampled_from([3, 2, 1]),
        cap=CAPS,
        session_cap=MORE_CAPS,
        model_cap=st.none() | MORE_CAPS,
    )
    def start(self, exact, processes, cap, session_cap, model_cap):
        self.clock = FakeClock()
        self.ledger = MemoryLedger(self.clock.now_us)
        self.exact = exact
        self.caps = {"max_spend_per_session": session_cap / 1000, "model_limits": {}}
        if model_cap is not None:
            self.caps["model_limits"] = {"m": {"max_tokens_per_period": model_cap}}
        self.meters = [self._meter() for _ in range(processes)]
        self.asleep_since = [None] * processes
        self.calls = []
        self.expected = []
        self.largest = defaultdict(int)
        self.debt = defaultdict(int)
        self.configure(cap)

    def _meter(self):
        options = Options(boot=self.clock.boot, busy_timeout_s=0.0)
        meter = Meter(self.ledger, options)
        meter.exporter.threaded = False
        return meter

    def _awake(self, process):
        """The process of that number, or the next one that is awake."""
        for offset in range(len(self.meters)):
            number = (process + offset) % len(self.meters)
            if self.asleep_since[number] is None:
                return self.meters[number]
        return None

    def _pass(self, seconds):
        """Let time pass in steps of a tick, in which everybody who is awake does his work."""
        while seconds > 0:
            step = min(seconds, 0.5)
            self.clock.advance(step)
            seconds -= step
            for number, meter in enumerate(self.meters):
                if self.asleep_since[number] is None:
                    meter.exporter.run_step()

    # -- what may happen ------------------------------------------------------------------------------

    @rule(cap=CAPS)
    def configure(self, cap):
        """The plan's cap is set; a lowered one leaves what is held and posted above it."""
        self.config = PlanConfig(
            max_spend_per_period=cap / 1000 + 1e-9 * 50,
            cost_rates={"m": {"input": 1.0, "output": 1.0}},
            pre_call_estimate=self.exact,
            reservation_safety_factor=1.0,
            **self.caps,
        )
        before = {key: self._over(*key) for key in self._buckets()}
        self.ledger.put_plan("default", self.config.model_dump_json())
        for key in self._buckets():
            self.debt[key] += max(0, self._over(*key) - max(0, before.get(key, 0)))

    @rule(process=st.integers(0, 2), user=st.sampled_from(USERS), tokens=st.integers(1, 60))
    def begin(self, process, user, tokens):
        meter = self._awake(process)
        if meter is None:
            return
        call = meter.call(Payer(user), "openai", "chat", "m", 0, tokens - 1)
        try:
            meter.gate.begin(call)
        except PaygentLimitExceeded:
            return
        assert call.state is State.HELD
        self.calls.append((meter, call, tokens))
        for scope in (TOTAL_SPEND, SESSION_SPEND):
            self.largest[scope] = max(self.largest[scope], tokens * TOKEN + 1)
        self.largest["model_limit:m"] = max(self.largest["model_limit:m"], tokens)

    @rule(user=st.sampled_from(USERS), tokens=st.lists(st.integers(1, 200), min_size=3, max_size=9))
    def compete(self, user, tokens):
        """Every process in turn begins calls of one user, and all of them stay open."""
        for number, amount in enumerate(tokens):
            self.begin(number % 3, user, amount)

    @rule(process=st.integers(0, 2), tokens=st.lists(st.integers(1, 60), min_size=1, max_size=12))
    def spend(self, process, tokens):
        """One call after the other, each at its estimate."""
        for amount in tokens:
            before = len(self.calls)
            self.begin(process, "ada", amount)
            if len(self.calls) > before:
                self.finish(-1, amount)

    @precondition(lambda self: self.calls)
    @rule(pick=st.integers(0, 99), used=st.integers(0, 70))
    def finish(self, pick, used):
        meter, call, tokens = self.calls[pick % len(self.calls)]
        if self.asleep_since[self.meters.index(meter)] is not None:
            return
        self.calls.remove((meter, call, tokens))
        period, session, purse, _ = call.purses
        for scope, window, excess in (
            (TOTAL_SPEND, period.window.key, (used - tokens) * TOKEN),
            (SESSION_SPEND, session.window.key, (used - tokens) * TOKEN),
            ("model_limit:m", purse.window.key, used - tokens),
        ):
            self.debt[call.user_id, scope, window] += max(0, excess)
        call.finish(Usage(input_tokens=used))
        self.expected.append((meter, call.user_id, used * TOKEN))

    @precondition(lambda self: self.calls)
    @rule(pick=st.integers(0, 99))
    def fail(self, pick):
        meter, call, tokens = self.calls[pick % len(self.calls)]
        if self.asleep_since[self.meters.index(meter)] is None:
            self.calls.remove((meter, call, tokens))
            call.fail(RuntimeError("the provider refused"))

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 4.0, 12.0, 45.0]))
    def wait(self, seconds):
        self._pass(seconds)

    @rule(process=st.integers(0, 2))
    def fall_asleep(self, process):
        self.asleep_since[process % len(self.meters)] = self.clock.boot()

    @rule(process=st.integers(0, 2))
    def wake_up(self, process):
        """What a process that slept for too long still holds is registered again, room or not."""
        process %= len(self.meters)
        since = self.asleep_since[process]
        self.asleep_since[process] = None
        if since is not None and self.clock.boot() - since > LEASE_TTL_S - 2:
            for meter, call, tokens in self.calls:
                if meter is self.meters[process]:
                    self._owe(call, tokens)
            for wallet in self.meters[process].wallets.values():
                for purse in wallet.purses.values():
                    # what it had spent and not yet settled was covered by the lease that it lost
                    self.debt[wallet.user_id, purse.scope, purse.window.key] += max(0, purse.unsettled)

    def _owe(self, call, tokens):
        period, session, purse, _ = call.purses
        self.debt[call.user_id, TOTAL_SPEND, period.window.key] += tokens * TOKEN + 1
        self.debt[call.user_id, SESSION_SPEND, session.window.key] += tokens * TOKEN + 1
        self.debt[call.user_id, "model_limit:m", purse.window.key] += tokens

    @rule(process=st.integers(0, 2))
    def die(self, process):
        """A process is replaced by a new one; what it held is free when its lease expires."""
        process %= len(self.meters)
        self.wake_up(process)  # the end of a process begins with its last flush
        dead = self.meters[process]
        dead.exporter.flush().result(0)
        self.calls = [entry for entry in self.calls if entry[0] is not dead]
        self.meters[process] = self._meter()
        self.asleep_since[process] = None

    @rule()
    def roll_over(self):
        """A new billing period begins for one user; his open calls stay in the old one."""
        now_us = self.clock.now_us()
        self.ledger.put_account("bob", {"period": (now_us, now_us + 3_600_000_000)})

    # -- what always holds ----------------------------------------------------------------------------

    def _buckets(self):
        rows = self.ledger._leases
        leased = {
            (user, *bucket) for user in USERS for row in rows.get(user, {}).values() for bucket in row.amounts
        }
        posted = {(user, *bucket) for user in USERS for bucket in self.ledger.totals(user)}
        return leased | posted

    def _over(self, user, scope, window):
        """How far posted and live leases together are above the limit."""
        rows = _MemoryRows(self.ledger)
        plan = compiled(plan_of(rows, rows.account(user) or self.ledger._accounts[user]))
        limit = plan.limit_of(scope).hard
        if limit >= UNLIMITED:
            return 0
        now_us = self.clock.now_us()
        leases = [row for row in self.ledger._leases.get(user, {}).values() if row.expires_us > now_us]
        held = sum(row.amounts.get((scope, window), 0) for row in leases)
        return self.ledger.totals(user).get((scope, window), 0) + held - limit

    @invariant()
    def the_limit_holds(self):
        for user, scope, window in self._buckets():
            allowed = (0 if self.exact else self.largest[scope]) + self.debt[user, scope, window]
            assert self._over(user, scope, window) <= allowed, (user, scope, window)

    @invariant()
    def totals_are_the_sum_of_the_rows(self):
        for user in USERS:
            totals = {bucket: amount for bucket, amount in self.ledger.totals(user).items() if amount}
            assert totals == {b: n for b, n in sums(self.ledger.events(user)).items() if n}

    @invariant()
    def no_lease_is_negative(self):
        rows = [row for user in USERS for row in self.ledger._leases.get(user, {}).values()]
        assert all(amount >= 0 for row in rows for amount in row.amounts.values())

    @invariant()
    def holds_are_those_of_the_open_calls(self):
        for meter in self.meters:
            held = defaultdict(int)
            for owner, call, tokens in self.calls:
                if owner is meter:
                    held[call.user_id] += tokens * TOKEN + 1
            for user, wallet in meter.wallets.items():
                periods = [purse for purse in wallet.purses.values() if purse.scope == TOTAL_SPEND]
                assert sum(purse.held for purse in periods) == held[user]

    def teardown(self):
        """In the end every call of a living process is posted once, and nothing is held any more."""
        if not hasattr(self, "meters"):
            return
        for meter, call, _ in self.calls:
            call.finish(Usage(input_tokens=1))
            self.expected.append((meter, call.user_id, TOKEN))
        for meter in self.meters:
            meter.exporter.flush(give_back=True).result(0)
            assert meter.pending_events == 0
        self.clock.advance(LEASE_TTL_S)
        found = sorted((row.user_id, row.cost_nusd) for row in self.ledger.events(limit=100_000))
        assert found == sorted((user, cost) for _, user, cost in self.expected)
        for user in USERS:
            rows = self.ledger._leases.get(user, {})
            own = {meter.lease_id for meter in self.meters}
            assert all(not row.amounts for row in rows.values() if row.lease_id in own)


class TestFleet(Fleet.TestCase):
    # The same walks each time, so that a failure is the change's; PAYGENT_SIMULATION_EXAMPLES takes new ones.
    _examples = int(os.environ.get("PAYGENT_SIMULATION_EXAMPLES", "0"))
    settings = settings(
        max_examples=_examples or 100, stateful_step_count=50, deadline=None, derandomize=not _examples
    )

    def runTest(self):  # noqa: N802  # unittest's name for the one test of a machine
        """Whatever happens to a fleet, its limits hold but for named causes, and each call counts once."""
        super().runTest()
