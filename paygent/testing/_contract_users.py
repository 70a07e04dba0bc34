"""The contract on plans, accounts, windows and what else is remembered of a user."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from paygent.core.plan import SESSION_SPEND
from paygent.core.windows import to_us
from paygent.ledger import GateRow, Job, Ledger
from paygent.testing._contract_values import (
    LedgerCase,
    MakeLedger,
    Process,
    at_once,
    bucket_in,
    event,
    plan_json,
)
from paygent.testing.clock import FakeClock

DAY_S = 86_400


class PlansContract(LedgerCase):
    """Which plan binds a user."""

    def test_without_a_plan_there_is_none(self, ledger: Ledger) -> None:
        """Where no plan is registered the reply says so."""
        assert Process(ledger).ask().plan.config is None

    def test_the_plan_named_default_is_for_everybody(self, ledger: Ledger, other: Ledger) -> None:
        """Users who were assigned nothing have the plan named default, in every process."""
        self.limit(ledger, 5.0)
        plan = Process(other).ask().plan
        assert (plan.name, plan.config) == ("default", ledger.plans()["default"])

    def test_an_assigned_plan_binds(self, ledger: Ledger, other: Ledger) -> None:
        """A user has the plan that he was assigned, from the next operation of any process on."""
        self.limit(ledger, 5.0)
        ledger.put_plan("pro", plan_json(max_spend_per_period=50.0))
        ledger.put_account("ada", {"plan": "pro"})
        assert Process(other).ask().plan.name == "pro"
        assert Process(other, "bob").ask().plan.name == "default"

    def test_an_unknown_plan_is_no_plan(self, ledger: Ledger) -> None:
        """A plan that nobody registered has no limits, not those of the default plan."""
        self.limit(ledger, 5.0)
        ledger.put_account("ada", {"plan": "gold"})
        plan = Process(ledger).ask().plan
        assert (plan.name, plan.config) == ("gold", None)

    def test_own_limits_win(self, ledger: Ledger) -> None:
        """A configuration of the user's own wins over his plan, and ends when it is taken away."""
        self.limit(ledger, 5.0)
        own = plan_json(max_spend_per_period=7.0)
        ledger.put_account("ada", {"own_config": own})
        assert Process(ledger).ask().plan.config == own
        ledger.put_account("ada", {"own_config": None})
        assert Process(ledger).ask().plan.config == ledger.plans()["default"]

    def test_a_changed_plan_is_a_new_version(self, ledger: Ledger, other: Ledger) -> None:
        """A plan with other content has another key, which every process sees with its next operation."""
        self.limit(ledger, 5.0)
        process = Process(other)
        before = process.ask().plan.key
        self.limit(ledger, 6.0)
        assert process.ask().plan.key != before

    def test_equal_content_is_no_new_version(self, ledger: Ledger) -> None:
        """A plan that is registered again keeps its key, in whatever order its parts are written."""
        ledger.put_plan("default", '{"soft_gate_at": 0.5, "max_spend_per_period": 1.0}')
        before = Process(ledger).ask().plan
        ledger.put_plan("default", '{"max_spend_per_period": 1.0, "soft_gate_at": 0.5}')
        assert Process(ledger).ask().plan == before

    def test_all_plans_are_listed(self, ledger: Ledger, other: Ledger) -> None:
        """Every registered plan is listed with its content."""
        plans = {"b": plan_json(max_spend_per_period=1.0), "a": plan_json()}
        for name, config in plans.items():
            ledger.put_plan(name, config)
        assert other.plans() == plans

    def test_an_operation_moves_a_user_to_a_known_plan(self, ledger: Ledger) -> None:
        """A plan named in an operation becomes the user's, in place of his own limits, if it is known."""
        ledger.put_plan("pro", plan_json(max_spend_per_period=50.0))
        ledger.put_account("ada", {"own_config": plan_json(), "plan": "basic"})
        assert Process(ledger).ask(plan="gold").account.plan == "basic"
        moved = Process(ledger).ask(plan="pro")
        assert (moved.plan.name, moved.account.own_config) == ("pro", None)
        assert Process(ledger).ask().plan.name == "pro"

    def test_changing_the_plan_keeps_the_usage(self, ledger: Ledger) -> None:
        """Neither a new plan nor another assignment touches what was used."""
        self.limit(ledger, 5.0)
        process = Process(ledger)
        process.ask(events=[event(process.ask(), 123)])
        ledger.put_plan("pro", plan_json(max_spend_per_period=50.0))
        ledger.put_account("ada", {"plan": "pro", "own_config": plan_json()})
        reply = process.ask()
        assert reply.posted[bucket_in(reply)] == 123

    def test_a_plan_from_a_newer_version_still_limits(self, ledger: Ledger) -> None:
        """Fields that this version does not know are passed over; the limits it knows hold."""
        ledger.put_plan("default", '{"max_spend_per_period": 0.0, "a_field_of_tomorrow": {"x": 1}}')
        assert Process(ledger).hold(1).denied is not None


class AccountsContract(LedgerCase):
    """What is known of a user."""

    def test_changes_touch_what_they_name(self, ledger: Ledger, other: Ledger) -> None:
        """A change of some fields leaves the others as they are."""
        period = (1_700_000_000_000_000, 1_700_000_500_000_000)
        ledger.put_account("ada", {"plan": "pro", "period": period})
        other.put_account("ada", {"sdk_enabled": False})
        account = Process(ledger).ask().account
        assert (account.plan, account.period, account.sdk_enabled) == ("pro", period, False)

    def test_concurrent_changes_are_all_kept(self, make_ledger: MakeLedger, clock: FakeClock) -> None:
        """Processes that change different fields of one user at once overwrite nothing of each other."""
        changes: list[dict[str, object]] = [
            {"plan": "pro"},
            {"own_config": plan_json(soft_gate_at=0.1)},
            {"period": (1, 2)},
            {"sdk_enabled": False},
        ]
        users = [f"user {number}" for number in range(15)]

        def run(change: dict[str, object]) -> None:
            ledger = make_ledger(clock.now_us)
            for user in users:
                ledger.put_account(user, change)

        at_once(run, changes)
        for user in users:
            account = Process(make_ledger(clock.now_us), user).ask().account
            assert {name: getattr(account, name) for change in changes for name in change} == {
                name: value for change in changes for name, value in change.items()
            }

    def test_a_batch_is_found_by_its_names(self, ledger: Ledger, other: Ledger) -> None:
        """A batch is found by its id and by each alias, per provider, from any process."""
        job = Job("batch_1", "ada", "chat-1", "openai", "m", {"a": ["b"]})
        ledger.put_job(job)
        ledger.put_job(job._replace(job_id="batch_2", metadata=None, session_id=None, model=None))
        ledger.link_job("openai", "batch_1", "file_9")
        assert other.job("openai", "batch_1") == other.job("openai", "file_9") == job
        assert other.job("openai", "batch_2") == Job("batch_2", "ada", None, "openai", None, None)
        assert other.job("anthropic", "batch_1") is None
        assert other.job("openai", "batch_3") is None

    def test_an_alias_may_come_first(self, ledger: Ledger) -> None:
        """An alias that is linked before its batch is known names it from then on."""
        ledger.link_job("openai", "batch_1", "file_9")
        ledger.put_job(Job("batch_1", "ada", None, "openai", None, None))
        assert ledger.job("openai", "file_9") == Job("batch_1", "ada", None, "openai", None, None)

    def test_decisions_are_kept_once(self, ledger: Ledger, other: Ledger) -> None:
        """A decision is kept as it was written, once, and the newest are listed first."""
        first = GateRow(
            "1", "ada", 10, "s", "hard_gate", "total_spend", 1.0, 5.0, 5.0, "m", 1, "no", {"a": 1}, 3
        )
        second = GateRow("2", "ada", 20, None, "soft_gate", None, 0.8, 0.0, 0.0, None, 0, None, None, 1)
        third = first._replace(id="3", user_id="bob", timestamp_us=30)
        ledger.record_gates([first, second])
        other.record_gates([second, third, first])
        assert ledger.gate_events() == [third, second, first]
        assert ledger.gate_events("ada", limit=1) == [second]


class WindowsContract(LedgerCase):
    """Billing periods and sessions."""

    def test_a_period_is_the_calendar_month(self, ledger: Ledger, clock: FakeClock) -> None:
        """Without an assigned period the billing period is the month in UTC on the ledger's clock."""
        month = Process(ledger).ask().period
        assert month.start_us <= clock.now_us() < month.end_us
        assert month.start_us == to_us(datetime(2026, 3, 1, tzinfo=timezone.utc))
        assert month.end_us == to_us(datetime(2026, 4, 1, tzinfo=timezone.utc))

    def test_an_assigned_period_rolls_on(self, ledger: Ledger, clock: FakeClock) -> None:
        """An assigned period that nobody renews is followed by others of its length, each from zero."""
        start_us = clock.now_us() - DAY_S * 1_000_000
        ledger.put_account("ada", {"period": (start_us, start_us + 7 * DAY_S * 1_000_000)})
        process = Process(ledger)
        first = process.ask()
        process.ask(events=[event(first, 77)])
        clock.advance(14 * DAY_S)
        third = process.ask()
        assert first.period.start_us == start_us
        assert third.period.start_us == start_us + 14 * DAY_S * 1_000_000
        assert third.posted.get(bucket_in(third), 0) == 0
        assert ledger.totals("ada")[bucket_in(first)] == 77

    def test_renewing_a_period_starts_anew(self, ledger: Ledger, clock: FakeClock) -> None:
        """A newly assigned period begins with nothing used, and extending one keeps what was used."""
        start_us = clock.now_us()
        ledger.put_account("ada", {"period": (start_us, start_us + 10_000_000)})
        process = Process(ledger)
        process.ask(events=[event(process.ask(), 77)])
        ledger.put_account("ada", {"period": (start_us, start_us + 20_000_000)})
        extended = process.ask()
        assert extended.posted[bucket_in(extended)] == 77
        ledger.put_account("ada", {"period": (start_us + 1, start_us + 10_000_001)})
        clock.advance(1)
        renewed = process.ask()
        assert renewed.posted.get(bucket_in(renewed), 0) == 0

    def test_a_session_begins_with_a_call(self, ledger: Ledger) -> None:
        """Looking at a user begins no session; the first call does, and the next ones share it."""
        process = Process(ledger)
        assert process.ask(begin_session=False).session is None
        begun = process.ask().session
        assert begun is not None
        assert process.ask(begin_session=False).session == process.ask().session == begun

    def test_processes_share_a_session(self, make_ledger: MakeLedger, clock: FakeClock) -> None:
        """Processes that make the first call at the same time begin one session between them."""
        found: set[object] = set()

        def run(_: int) -> None:
            ledger = make_ledger(clock.now_us)
            for number in range(20):
                found.add((number, Process(ledger, f"user {number}").ask().session))

        at_once(run, range(3))
        assert len(found) == 20

    def test_a_session_ends_by_the_time_it_began(self, ledger: Ledger, clock: FakeClock) -> None:
        """A session ends its timeout after it began, however busy it is; the next call begins another."""
        self.limit(ledger, 1.0, session_timeout_minutes=10)
        process = Process(ledger)
        first = process.ask().session
        clock.advance(599)
        assert process.ask().session == first
        clock.advance(1)
        assert process.ask(begin_session=False).session is None
        second = process.ask().session
        assert second is not None
        assert first is not None
        assert second.session_id != first.session_id

    def test_a_session_of_the_callers_own(self, ledger: Ledger, other: Ledger, clock: FakeClock) -> None:
        """A session named by the caller is one of its own beside the default one, in every process."""
        default = Process(ledger).ask().session
        clock.advance(60)
        own = Process(ledger).ask(session_id="chat-1").session
        assert own is not None
        assert own.session_id == "chat-1"
        assert Process(other).ask(session_id="chat-1").session == own
        assert Process(other).ask().session == default
        clock.advance(1)
        assert Process(other, "bob").ask(session_id="chat-1").session != own

    def test_sessions_are_counted_apart(self, ledger: Ledger) -> None:
        """What is used in one session is not used in another one."""
        self.limit(ledger, 1.0, max_spend_per_session=1e-6)
        process = Process(ledger)
        process.ask(session_id="a", events=[event(process.ask(session_id="a"), 1000)])
        assert process.ask(session_id="a", need={SESSION_SPEND: 1}).denied == SESSION_SPEND
        assert process.ask(session_id="b", need={SESSION_SPEND: 1}).denied is None
        assert process.ask(need={SESSION_SPEND: 1}).denied is None

    @pytest.mark.parametrize("own_id", [None, "chat-1"])
    def test_setting_the_clock_back_a_little_ends_no_session(
        self, ledger: Ledger, clock: FakeClock, own_id: str | None
    ) -> None:
        """A session goes on when the clock is set back to before it began."""
        process = Process(ledger)
        session = process.ask(session_id=own_id).session
        clock.set_wall(-1)
        assert process.ask(session_id=own_id).session == session

    def test_setting_the_clock_back_far_stretches_no_session(self, ledger: Ledger, clock: FakeClock) -> None:
        """A session from what is now the far future is not running."""
        process = Process(ledger)
        session = process.ask().session
        clock.set_wall(-DAY_S)
        assert process.ask().session != session

    def test_a_longer_timeout_stretches_a_running_session(self, ledger: Ledger, clock: FakeClock) -> None:
        """A plan that grants longer sessions also grants them to one that is running."""
        self.limit(ledger, 1.0, session_timeout_minutes=10)
        process = Process(ledger)
        session = process.ask().session
        self.limit(ledger, 1.0, session_timeout_minutes=10_000)
        assert session is not None
        process.ask()
        for _ in range(5):
            clock.advance(DAY_S)
            stretched = process.ask().session
            assert stretched is not None
            assert stretched.session_id == session.session_id
