import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from paygent.core.balance import UNLIMITED, Balance, Denied, Granted, covers, reserve, share, within

AMOUNTS = st.integers(min_value=0, max_value=10**12)
SPENT, BUSY = Denied("s", busy=False), Denied("s", busy=True)

# limit, posted, held, need, exact, outcome (of a bare need)
TABLE = [
    (100, 0, 0, 10, True, 10),
    (100, 90, 0, 10, True, 10),
    (100, 91, 0, 10, True, SPENT),
    (100, 50, 41, 10, True, BUSY),
    (100, 50, 40, 10, True, 10),
    (100, 100, 0, 0, True, SPENT),
    (100, 120, 0, 1, True, SPENT),
    (100, 0, 100, 0, True, BUSY),
    (100, 99, 0, 10, False, 10),
    (100, 100, 0, 10, False, SPENT),
    (100, 99, 1, 10, False, BUSY),
    (100, 99, 10, 10, False, BUSY),
    (100, 0, 99, 10, False, 10),
    (100, 0, 0, 1000, False, 1000),
    (100, 0, 0, 1000, True, SPENT),
    (0, 0, 0, 0, True, SPENT),
    (0, 0, 0, 0, False, SPENT),
]


@pytest.mark.parametrize("limit, posted, held, need, exact, outcome", TABLE)
def test_a_reservation_is_decided_by_the_totals(limit, posted, held, need, exact, outcome):
    """A need is granted by the room that posted and held leave; refused, it is spent or busy."""
    balances = {"s": Balance(limit, posted, held)}
    decided = reserve(balances, {"s": need}, exact=exact, slice_calls=0)
    assert decided == (outcome if isinstance(outcome, Denied) else Granted({"s": outcome}))


@pytest.mark.parametrize("balances", [{}, {"s": Balance()}, {"s": Balance(posted=10**18, held=10**18)}])
def test_an_unlimited_scope_is_granted_without_an_amount(balances):
    """What has no limit is never refused and never leased."""
    assert reserve(balances, {"s": 10**15}, exact=True) == Granted({})


def test_one_scope_without_room_refuses_all():
    """Where one scope has no room nothing is granted on any, and a spent scope is named before a busy one."""
    balances = {"a": Balance(100), "b": Balance(100, held=100), "c": Balance(100, posted=100)}
    assert reserve(balances, {"a": 1, "b": 1}, exact=True) == Denied("b", busy=True)
    assert reserve(balances, {"a": 1, "b": 1, "c": 1}, exact=True) == Denied("c", busy=False)


def test_of_scopes_alike_the_first_is_named():
    """Where several scopes are spent, or several busy, the refusal names the first that was asked for."""
    held, posted = Balance(100, held=100), Balance(100, posted=100)
    assert reserve({"a": held, "b": held}, {"a": 1, "b": 1}, exact=True) == Denied("a", busy=True)
    assert reserve({"a": posted, "b": posted}, {"a": 1, "b": 1}, exact=True) == Denied("a", busy=False)


def test_no_total_spends_what_has_no_limit():
    """An unlimited scope refuses nothing, however much is posted on it."""
    assert reserve({"s": Balance(posted=UNLIMITED)}, {"s": 1}, exact=True) == Granted({})


@pytest.mark.parametrize(
    "room, need, sharers, amount",
    [
        (10_000, 10, 1, 640),
        (1000, 10, 1, 500),
        (1000, 10, 5, 100),
        (1, 10, 1, 0),
        (-5, 10, 1, 0),
        (1000, 10, 0, 500),
    ],
)
def test_a_slice_is_a_share_of_the_room(room, need, sharers, amount):
    """A slice is 64 needs, and at most half of the room divided by those who share it."""
    assert share(room, need, sharers) == amount


@pytest.mark.parametrize("held, need, lease, covered", [(0, 5, 5, True), (1, 5, 5, False), (5, 0, 5, True)])
def test_a_wallet_tests_strictly(held, need, lease, covered):
    """Holds never exceed the lease, whatever the plan's mode."""
    assert covers(held, need, lease) is covered


@pytest.mark.parametrize(
    "lease, held, room, kept",
    [(100, 0, 100, 100), (100, 0, 30, 30), (100, 50, 30, 50), (100, 0, -5, 0), (5, 9, 0, 5)],
)
def test_what_goes_past_the_limit_does_not_stay_leased(lease, held, room, kept):
    """A lease is cut to what the limit leaves, and never below the open holds."""
    assert within(lease, held, room) == kept


@given(
    limit=AMOUNTS,
    posted=AMOUNTS,
    held=AMOUNTS,
    need=AMOUNTS,
    sharers=st.integers(0, 100),
    exact=st.booleans(),
)
def test_no_grant_breaks_the_rule(limit, posted, held, need, sharers, exact):
    """A grant covers its need; exact it fits the room, else only the bare need of one call goes past it."""
    balance = Balance(limit, posted, held)
    outcome = reserve({"s": balance}, {"s": need}, exact=exact, sharers=sharers)
    if isinstance(outcome, Denied):
        assert balance.room <= 0 or (exact and need > balance.room)
        alone = reserve({"s": Balance(limit, posted)}, {"s": need}, exact=exact)
        assert outcome.busy is isinstance(alone, Granted)
    else:
        (granted,) = outcome.amounts.values()
        assert balance.room > 0
        assert granted >= need
        assert granted <= balance.room or (granted == need and not exact)


@given(limit=AMOUNTS, posted=AMOUNTS, held=AMOUNTS, need=AMOUNTS, exact=st.booleans())
def test_a_grant_that_was_given_back_is_given_again(limit, posted, held, need, exact):
    """Reserving and voiding leaves everything as it was: the same reservation is granted again."""
    first = reserve({"s": Balance(limit, posted, held)}, {"s": need}, exact=exact)
    if isinstance(first, Granted):
        after = held + first.amounts["s"] - first.amounts["s"]
        assert reserve({"s": Balance(limit, posted, after)}, {"s": need}, exact=exact) == first


class Fleet(RuleBasedStateMachine):
    """Processes that lease from one limit and spend from their leases, by nothing but the rule."""

    @initialize(limit=st.integers(0, 2000), exact=st.booleans(), processes=st.integers(1, 4))
    def start(self, limit, exact, processes):
        self.limit, self.exact = limit, exact
        self.posted = 0
        self.rows = []
        self.leases = [0] * processes
        self.holds = [[] for _ in range(processes)]
        self.largest = 0
        self.debt = 0

    def _held(self, process):
        return sum(self.holds[process])

    def _others(self, process):
        return sum(self.leases) - self.leases[process]

    @rule(process=st.integers(0, 3), need=st.integers(0, 300))
    def begin(self, process, need):
        process %= len(self.leases)
        held = self._held(process)
        if not covers(held, need, self.leases[process]):
            self.leases[process] = held
            balance = Balance(self.limit, self.posted, self._others(process) + held)
            outcome = reserve({"s": balance}, {"s": need}, exact=self.exact, sharers=len(self.leases))
            if isinstance(outcome, Denied):
                return
            assert balance.room > 0
            assert not self.exact or outcome.amounts["s"] <= balance.room
            self.leases[process] += outcome.amounts["s"]
        self.holds[process].append(need)
        self.largest = max(self.largest, need)

    @precondition(lambda self: any(self.holds))
    @rule(process=st.integers(0, 3), pick=st.integers(0, 9), more=st.integers(-300, 60))
    def finish(self, process, pick, more):
        process %= len(self.leases)
        if not self.holds[process]:
            return
        need = self.holds[process].pop(pick % len(self.holds[process]))
        amount = max(0, need + more)
        self.debt += max(0, amount - need)
        self.posted += amount
        self.rows.append(amount)
        lease = max(0, self.leases[process] - amount)
        held = self._held(process)
        self.leases[process] = within(
            max(lease, held), held, self.limit - self.posted - self._others(process)
        )

    @precondition(lambda self: any(self.holds))
    @rule(process=st.integers(0, 3))
    def void(self, process):
        process %= len(self.leases)
        if self.holds[process]:
            self.holds[process].pop()
            held = self._held(process)
            room = self.limit - self.posted - self._others(process)
            self.leases[process] = within(self.leases[process], held, room)

    @rule(process=st.integers(0, 3))
    def give_back(self, process):
        process %= len(self.leases)
        self.leases[process] = self._held(process)

    @rule(process=st.integers(0, 3))
    def die(self, process):
        """What a dead process held is free once its lease expires; its open calls were never counted."""
        process %= len(self.leases)
        self.holds[process] = []
        self.leases[process] = 0

    @invariant()
    def the_limit_holds(self):
        over = 0 if self.exact else self.largest
        assert self.posted + sum(self.leases) <= self.limit + over + self.debt

    @invariant()
    def holds_stay_within_leases(self):
        assert all(self._held(process) <= lease for process, lease in enumerate(self.leases))

    @invariant()
    def totals_are_the_sum_of_the_rows(self):
        assert self.posted == sum(self.rows)

    @invariant()
    def no_lease_is_negative(self):
        assert min(self.leases) >= 0


class TestFleet(Fleet.TestCase):
    def runTest(self):  # noqa: N802  # unittest's name for the one test of a machine
        """Whatever processes do, the limit holds but for one call and for what was under-estimated."""
        super().runTest()


def test_unlimited_is_above_every_amount():
    """The stand-in for no limit is larger than any limit that a plan can state, and a machine word."""
    assert 10**18 < UNLIMITED < 2**63
