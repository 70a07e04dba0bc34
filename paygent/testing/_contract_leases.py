"""The contract on leases: many processes share one cap, and it holds."""

from __future__ import annotations

import pytest

from paygent.core.plan import MODEL_LIMIT, SESSION_SPEND, TOTAL_SPEND
from paygent.ledger import LEASE_TTL_S, Ledger
from paygent.testing._contract_values import (
    USD,
    LedgerCase,
    MakeLedger,
    Process,
    at_once,
    bucket_in,
    event,
    leased,
    plan_json,
)
from paygent.testing.clock import FakeClock


class GrantsContract(LedgerCase):
    """The rule of the gate, where the ledger grants."""

    def test_far_from_the_limit_a_slice_comes_on_top(self, ledger: Ledger) -> None:
        """A process alone and far from the limit gets its need and 64 times as much on top."""
        self.limit(ledger, 1.0)
        assert leased(Process(ledger).hold(1000)) == 65 * 1000

    def test_slices_shrink_near_the_limit(self, ledger: Ledger) -> None:
        """The slice is at most half of what is left, down to the bare need."""
        self.limit(ledger, 1.0)
        near = Process(ledger)
        near.ask(events=[event(near.ask(), USD - 101_000)])
        assert leased(near.hold(1000)) == 1000 + 50_000
        near.give_back()
        near.ask(events=[event(near.ask(), 100_000)])
        assert leased(near.hold(1000)) == 1000

    def test_slices_shrink_with_the_processes(self, ledger: Ledger, other: Ledger) -> None:
        """Each live lease on the account makes the slices smaller; an empty one does not."""
        self.limit(ledger, 1e-6)
        Process(other).hold(0)
        gone = Process(other)
        gone.hold(100)
        gone.give_back()
        first = Process(other)
        first.hold(100)
        first.ask()
        reply = Process(ledger).hold(100)
        assert reply.sharers == 2
        assert leased(reply) == 100 + (1000 - 100 - 100) // (2 * 2)

    def test_what_others_hold_is_told(self, ledger: Ledger, other: Ledger) -> None:
        """A reply names what other processes hold, as sums by scope and window."""
        self.limit(ledger, 1e-6)
        leases = [leased(Process(other).hold(amount)) for amount in (100, 30)]
        reply = Process(ledger).ask()
        assert reply.others == {bucket_in(reply): sum(leases)}

    @pytest.mark.parametrize("exact", [True, False])
    def test_a_spent_limit_is_spent(self, ledger: Ledger, *, exact: bool) -> None:
        """Once all of the limit is posted, a call is refused as spent, also one that needs nothing."""
        self.limit(ledger, 1e-6, exact=exact)
        process = Process(ledger)
        process.ask(events=[event(process.ask(), 1000)])
        for need in (1, 0):
            reply = process.ask(need={TOTAL_SPEND: need})
            assert (reply.denied, reply.busy) == (TOTAL_SPEND, False)

    @pytest.mark.parametrize("exact", [True, False])
    def test_what_others_hold_is_busy(self, ledger: Ledger, other: Ledger, *, exact: bool) -> None:
        """A call that only the leases of others stand in the way of is refused as busy."""
        self.limit(ledger, 1e-6, exact=exact)
        Process(other).hold(1000)
        reply = Process(ledger).hold(10)
        assert (reply.denied, reply.busy) == (TOTAL_SPEND, True)

    def test_an_exact_plan_grants_nothing_beyond_the_limit(self, ledger: Ledger) -> None:
        """With pre_call_estimate a need larger than the room is refused, and one as large is granted."""
        self.limit(ledger, 1e-6)
        process = Process(ledger)
        process.ask(events=[event(process.ask(), 900)])
        refused = process.ask(need={TOTAL_SPEND: 101})
        assert (refused.denied, refused.busy, leased(refused)) == (TOTAL_SPEND, False, 0)
        assert leased(process.hold(100)) == 100

    def test_otherwise_one_call_may_pass_the_limit(self, ledger: Ledger) -> None:
        """Without pre_call_estimate the last room admits one call in full, and no slice with it."""
        self.limit(ledger, 1e-6, exact=False)
        process = Process(ledger)
        process.ask(events=[event(process.ask(), 999)])
        assert leased(process.hold(500)) == 500

    def test_only_one_such_call_in_the_whole_fleet(self, ledger: Ledger, other: Ledger) -> None:
        """While one call is past the limit no process gets another one, the same process neither."""
        self.limit(ledger, 1e-6, exact=False)
        first = Process(ledger)
        first.ask(events=[event(first.ask(), 999)])
        first.hold(500)
        for second in (first, Process(other)):
            reply = second.ask(need={TOTAL_SPEND: 1})
            assert (reply.denied, reply.busy) == (TOTAL_SPEND, True)

    def test_a_cap_of_nothing_blocks_everything(self, ledger: Ledger) -> None:
        """A cap of 0 refuses every call as spent."""
        self.limit(ledger, 0.0, exact=False)
        reply = Process(ledger).ask(need={TOTAL_SPEND: 0})
        assert (reply.denied, reply.busy) == (TOTAL_SPEND, False)

    def test_all_scopes_or_none(self, ledger: Ledger) -> None:
        """Where one of several limits has no room, nothing is leased on the others."""
        self.limit(ledger, 1.0, model_limits={"m": {"max_tokens_per_period": 10}})
        process = Process(ledger)
        reply = process.ask(need={TOTAL_SPEND: 100, MODEL_LIMIT + "m": 11})
        assert (reply.denied, reply.lease) == (MODEL_LIMIT + "m", {})
        granted = process.ask(need={TOTAL_SPEND: 100, MODEL_LIMIT + "m": 10})
        assert leased(granted, MODEL_LIMIT + "m") == 10
        assert leased(granted) >= 100

    def test_sessions_have_a_limit_of_their_own(self, ledger: Ledger, clock: FakeClock) -> None:
        """A spent session refuses calls until it ends, whatever is left of the period."""
        self.limit(ledger, 1.0, max_spend_per_session=1e-6)
        process = Process(ledger)
        process.ask(events=[event(process.ask(), 1000)])
        assert process.ask(need={SESSION_SPEND: 1, TOTAL_SPEND: 1}).denied == SESSION_SPEND
        clock.advance(1801)
        assert process.ask(need={SESSION_SPEND: 1, TOTAL_SPEND: 1}).denied is None

    def test_unlimited_scopes_are_not_leased(self, ledger: Ledger) -> None:
        """A plan without limits grants without a lease."""
        reply = Process(ledger).ask(need={TOTAL_SPEND: 10**15, SESSION_SPEND: 1})
        assert (reply.denied, reply.lease) == (None, {})

    def test_own_idle_amounts_are_room(self, ledger: Ledger) -> None:
        """What a process keeps idle does not stand in the way of its own next call."""
        self.limit(ledger, 1e-6)
        process = Process(ledger)
        bucket = bucket_in(process.hold(100))
        process.held = {}
        reply = process.ask(keep={bucket: 550}, need={TOTAL_SPEND: 1000})
        assert (reply.denied, leased(reply)) == (None, 1000)

    def test_a_wish_is_granted_from_ample_room_only(self, ledger: Ledger) -> None:
        """A process that wants to refill gets a slice where there is room, and is never refused."""
        self.limit(ledger, 1e-6)
        process = Process(ledger)
        reply = process.ask(want={TOTAL_SPEND: 10})
        assert leased(reply) == 500
        process.ask(events=[event(reply, 1000)])
        refused = process.ask(want={TOTAL_SPEND: 10})
        assert (refused.denied, leased(refused)) == (None, 0)

    def test_a_refusal_changes_nothing(self, ledger: Ledger, other: Ledger) -> None:
        """After a refusal totals and leases are what they were, seen from another process too."""
        self.limit(ledger, 1e-6)
        process = Process(ledger)
        process.hold(300)
        before = Process(other).ask()
        assert process.ask(need={TOTAL_SPEND: 5000}).denied == TOTAL_SPEND
        process.ask(keep={bucket_in(before): before.others[bucket_in(before)]})
        after = Process(other).ask()
        assert (after.posted, sum(after.others.values())) == (before.posted, 300)

    def test_a_post_takes_the_place_of_its_hold(self, ledger: Ledger, other: Ledger) -> None:
        """Posting and giving back in one operation frees exactly what was not used."""
        self.limit(ledger, 1e-6)
        process = Process(ledger)
        reply = process.hold(1000)
        process.held = {}
        process.ask(events=[event(reply, 400)])
        assert Process(other).ask(need={TOTAL_SPEND: 601}).denied == TOTAL_SPEND
        assert Process(other).ask(need={TOTAL_SPEND: 600}).denied is None

    def test_a_post_above_its_hold_is_posted_in_full(self, ledger: Ledger) -> None:
        """What the provider has charged is posted, also beyond the lease and the limit."""
        self.limit(ledger, 1e-6)
        process = Process(ledger)
        reply = process.hold(1000)
        process.held = {}
        assert process.ask(events=[event(reply, 7000)]).posted[bucket_in(reply)] == 7000

    def test_waiting_asks_others_to_hand_back(self, ledger: Ledger, other: Ledger, clock: FakeClock) -> None:
        """A busy refusal tells the processes that hold something so, for a second."""
        self.limit(ledger, 1e-6)
        holder = Process(other)
        holder.hold(1000)
        assert not holder.ask().contended
        Process(ledger).hold(10)
        assert holder.ask().contended
        clock.advance(1.1)
        assert not holder.ask().contended

    def test_processes_at_once_never_pass_the_limit(self, make_ledger: MakeLedger, clock: FakeClock) -> None:
        """Processes that ask at the same time are granted what the limit covers, all of it and no more."""
        self.limit(make_ledger(clock.now_us), 40e-9)
        granted: list[str | None] = []

        def run(_: int) -> None:
            ledger = make_ledger(clock.now_us)
            for _ in range(20):
                reply = Process(ledger).ask(need={TOTAL_SPEND: 1})
                granted.append(reply.denied)

        at_once(run, range(4))
        reply = Process(make_ledger(clock.now_us)).ask()
        assert len(granted) == 80
        assert granted.count(None) <= 40
        assert sum(reply.others.values()) == 40


class OperationsContract(LedgerCase):
    """Lease operations are absolute and numbered."""

    def test_a_repeat_is_answered_from_what_is_stored(self, ledger: Ledger, other: Ledger) -> None:
        """The same operation sent twice grants once, and both answers are the same."""
        self.limit(ledger, 1e-6)
        process = Process(ledger)
        first = process.hold(100)
        assert process.last is not None
        (again,) = ledger.lease([process.last])
        assert (again.lease, again.denied) == (first.lease, None)
        assert Process(other).ask().others == first.lease

    def test_a_repeated_refusal_is_a_refusal(self, ledger: Ledger, other: Ledger) -> None:
        """A refused operation sent again is refused again, also once there is room."""
        self.limit(ledger, 1e-6)
        holder, process = Process(other), Process(ledger)
        holder.hold(1000)
        process.hold(10)
        assert process.last is not None
        holder.give_back()
        (again,) = ledger.lease([process.last])
        assert (again.denied, again.busy) == (TOTAL_SPEND, True)
        assert process.hold(10).denied is None

    def test_an_operation_that_comes_late_changes_no_lease(self, ledger: Ledger, other: Ledger) -> None:
        """An operation with a lower number posts its events and leaves the lease as it is."""
        self.limit(ledger, 1e-6)
        process = Process(ledger)
        reply = process.hold(100)
        late = process.ask(seq=0, held={}, events=[event(reply, 40)], need={TOTAL_SPEND: 500}, plan="default")
        assert late.posted[bucket_in(reply)] == 40
        assert (late.lease, late.denied) == (reply.lease, None)
        assert Process(other).ask().others == reply.lease

    def test_what_was_given_back_stays_given_back(self, ledger: Ledger, other: Ledger) -> None:
        """An operation that arrives after its process gave everything back leases nothing."""
        self.limit(ledger, 1e-6)
        process = Process(ledger)
        bucket = bucket_in(process.hold(100))
        process.give_back()
        process.ask(seq=1, held={bucket: 100}, need={TOTAL_SPEND: 100})
        assert Process(other).ask().others == {}

    def test_nothing_idle_is_kept_that_was_not_granted(self, ledger: Ledger) -> None:
        """A process cannot keep more idle than it was granted."""
        self.limit(ledger, 1e-6)
        process = Process(ledger)
        bucket = bucket_in(process.ask())
        assert leased(process.ask(keep={bucket: 900})) == 0
        granted = leased(process.hold(10))
        assert leased(process.ask(keep={bucket: 900})) == granted

    def test_many_users_go_in_one_step(self, ledger: Ledger) -> None:
        """Operations of several users are answered in the order in which they were sent."""
        self.limit(ledger, 1e-6)
        for user in ("cy", "ada", "bob"):
            Process(ledger, user).ask()
        processes = [Process(ledger, user) for user in ("cy", "ada", "bob")]
        for process in processes:
            process.ask()
        requests = [process.last for process in processes if process.last is not None]
        for request in requests:
            request.seq, request.need = request.seq + 1, {TOTAL_SPEND: 1}
        replies = ledger.lease(requests)
        assert [reply.account.user_id for reply in replies] == ["cy", "ada", "bob"]
        assert all(leased(reply) >= 1 for reply in replies)


class ExpiryContract(LedgerCase):
    """Leases end by the ledger's clock, and by nothing else."""

    def test_a_lease_expires(self, ledger: Ledger, other: Ledger, clock: FakeClock) -> None:
        """What a process held is free 30 s after it was last heard of, and not before."""
        self.limit(ledger, 1e-6)
        Process(other).hold(1000)
        clock.advance(LEASE_TTL_S - 0.001)
        assert Process(ledger).hold(1).busy
        clock.advance(0.001)
        assert Process(ledger).hold(1).denied is None

    def test_renewing_keeps_a_lease(self, ledger: Ledger, other: Ledger, clock: FakeClock) -> None:
        """Each operation gives a lease its full time again."""
        self.limit(ledger, 1e-6)
        holder = Process(other)
        holder.hold(1000)
        for _ in range(3):
            clock.advance(LEASE_TTL_S - 1)
            holder.ask()
        assert Process(ledger).hold(1).busy

    def test_an_expired_lease_comes_back_with_its_holds_alone(self, ledger: Ledger, clock: FakeClock) -> None:
        """Renewing an expired lease posts its events and keeps its open holds; the idle part is gone."""
        self.limit(ledger, 1e-6)
        process = Process(ledger)
        reply = process.hold(100)
        idle = leased(reply) - 100
        clock.advance(LEASE_TTL_S)
        renewed = process.ask(keep={bucket_in(reply): 100 + idle}, events=[event(reply, 5)])
        assert leased(renewed) == 100
        assert renewed.posted[bucket_in(reply)] == 5

    def test_open_holds_come_back_past_the_limit(
        self, ledger: Ledger, other: Ledger, clock: FakeClock
    ) -> None:
        """Open holds of a process that slept count again, also where others have taken the room meanwhile."""
        self.limit(ledger, 1e-6)
        sleeper, taker = Process(ledger), Process(other)
        bucket = bucket_in(sleeper.hold(600))
        clock.advance(LEASE_TTL_S)
        taker.hold(1000)
        assert leased(sleeper.ask()) == 600
        assert taker.ask().others[bucket] == 600
        assert sleeper.ask(need={TOTAL_SPEND: 1}).busy

    def test_setting_the_clock_back_loses_no_lease(
        self, ledger: Ledger, other: Ledger, clock: FakeClock
    ) -> None:
        """A lease outlives a clock that is set back, by a millisecond or by a day."""
        self.limit(ledger, 1e-6)
        Process(other).hold(1000)
        for seconds in (-0.001, -86_400):
            clock.set_wall(seconds)
            assert Process(ledger).hold(1).busy

    def test_setting_the_clock_back_prolongs_no_lease(
        self, ledger: Ledger, other: Ledger, clock: FakeClock
    ) -> None:
        """A lease from before the clock was set back lives for no more than 30 s from when that is seen."""
        self.limit(ledger, 1e-6)
        Process(other).hold(1000)
        clock.set_wall(-86_400)
        Process(ledger).ask()
        clock.advance(LEASE_TTL_S)
        assert Process(ledger).hold(1).denied is None

    def test_setting_the_clock_back_prolongs_no_wait(
        self, ledger: Ledger, other: Ledger, clock: FakeClock
    ) -> None:
        """Nobody is asked to hand back for longer because the clock was set back."""
        self.limit(ledger, 1e-6)
        holder = Process(other)
        holder.hold(1000)
        Process(ledger).hold(10)
        clock.set_wall(-86_400)
        assert not holder.ask().contended

    def test_the_leases_of_the_dead_are_closed(self, ledger: Ledger, other: Ledger) -> None:
        """Settling a dead process posts its events and frees its leases, of all users and of nobody else."""
        self.limit(ledger, 1e-6)
        for user in ("ada", "bob"):
            Process(other, user, "dead").hold(1000)
        Process(other, "cy", "alive").hold(1000)
        row = event(Process(ledger).ask(), 10)
        assert ledger.settle([row], close=["dead"]) == 1
        assert Process(ledger, "ada").hold(990).denied is None
        assert Process(ledger, "bob").hold(1000).denied is None
        assert Process(ledger, "cy").hold(1).busy

    def test_at_a_rollover_open_holds_stay_where_they_are(self, ledger: Ledger, clock: FakeClock) -> None:
        """A hold from the ended period is kept there, and takes nothing from the new one."""
        self.limit(ledger, 1e-6)
        ledger.put_account("ada", {"period": (clock.now_us(), clock.now_us() + 10_000_000)})
        process = Process(ledger)
        old = bucket_in(process.hold(900))
        clock.advance(10)
        reply = process.hold(1000)
        assert reply.lease == {old: 900, bucket_in(reply): 1000}

    def test_a_lowered_limit_takes_no_lease_away(self, ledger: Ledger) -> None:
        """A plan that is lowered below what is held refuses the next call and keeps open holds."""
        self.limit(ledger, 1e-6)
        process = Process(ledger)
        process.hold(800)
        ledger.put_plan("default", plan_json(max_spend_per_period=1e-7, pre_call_estimate=True))
        reply = process.ask(need={TOTAL_SPEND: 50})
        assert (reply.denied, reply.busy, leased(reply)) == (TOTAL_SPEND, True, 800)
