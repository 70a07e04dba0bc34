"""The contract on events and totals: what was used is counted once, exactly, and can be read back."""

from __future__ import annotations

import time

import pytest

from paygent.core.plan import MODEL_COST, MODEL_LIMIT, SESSION_SPEND, TOTAL_SPEND
from paygent.ledger import Ledger
from paygent.testing._contract_values import LedgerCase, MakeLedger, Process, at_once, bucket_in, event, sums
from paygent.testing.clock import FakeClock

STRANGE_IDS = {
    "escaped": "a%2Fb c+d&e",
    "NUL": "a\0b",
    "emoji": "👩‍🚀" * 40,
    "long": "x" * 512,
    "long and wide": "ß" * 512,
    "quotes": "o'hara\"; --",
    "blank": " ",
    "newline": "a\nb",
    "percent": "%_*?{}:",
}


class EventsContract(LedgerCase):
    """Posting, duplicates and reading back."""

    def test_an_event_adds_its_amounts_to_the_totals(self, ledger: Ledger) -> None:
        """An event adds its cost to period, session and model, and its tokens to the model."""
        reply = Process(ledger).ask()
        row = event(reply, 700, tokens=30)
        assert ledger.settle([row]) == 1
        period, session = row.period, row.session
        assert ledger.totals("ada") == {
            (TOTAL_SPEND, period): 700,
            (SESSION_SPEND, session): 700,
            (MODEL_LIMIT + "m", period): 30,
            (MODEL_COST + "m", period): 700,
        }

    def test_an_event_without_a_model_counts_as_spend_alone(self, ledger: Ledger) -> None:
        """An event without a model adds to no model's totals."""
        row = event(Process(ledger).ask(), 5, model=None)
        ledger.settle([row])
        assert {scope for scope, _ in ledger.totals("ada")} == {TOTAL_SPEND, SESSION_SPEND}

    def test_a_repeated_event_counts_once(self, ledger: Ledger) -> None:
        """An event that is sent again, in any way and in one batch or several, counts once."""
        process = Process(ledger)
        row = event(process.ask(), 100)
        assert ledger.settle([row, row]) == 1
        assert ledger.settle([row]) == 0
        reply = process.ask(events=[row])
        assert reply.posted[bucket_in(reply)] == 100
        assert len(ledger.events("ada")) == 1

    def test_of_a_batch_only_what_is_new_is_added(self, ledger: Ledger) -> None:
        """Where some events of a batch are known, the others are added and counted."""
        reply = Process(ledger).ask()
        rows = [event(reply, 10) for _ in range(6)]
        ledger.settle(rows[:2])
        assert ledger.settle(rows) == 4
        assert ledger.totals("ada")[bucket_in(reply)] == 60

    def test_an_event_is_read_back_as_it_was_written(self, ledger: Ledger) -> None:
        """Every field of an event comes back, nested metadata, tools and empty fields included."""
        full = event(
            Process(ledger).ask(),
            7,
            tokens=12,
            cost_tools_nusd=3,
            tool_calls=("search", "häuser"),
            metadata={"a": [1, {"b": None}], "ü": "👩‍🚀"},
            source="manual",
            estimated=1,
            cost_explicit=1,
            description="a 'quoted' line\nand another",
        )
        bare = event(
            Process(ledger, "bob").ask(), 0, model=None, session_id=None, provider=None, operation=None,
            rate_source=None,
        )  # fmt: skip
        ledger.settle([full, bare])
        assert [row._replace(tool_calls=tuple(row.tool_calls)) for row in ledger.events("ada")] == [full]
        assert [row._replace(tool_calls=tuple(row.tool_calls)) for row in ledger.events("bob")] == [bare]

    def test_the_newest_events_come_first(self, ledger: Ledger, clock: FakeClock) -> None:
        """Events are listed from the newest on, of one user or of all, up to the limit."""
        rows = []
        for user in ("ada", "bob", "ada", "bob"):
            clock.advance(1)
            rows.append(event(Process(ledger, user).ask(), 1))
        ledger.settle(rows)
        newest = [row.id for row in reversed(rows)]
        assert [row.id for row in ledger.events()] == newest
        assert [row.id for row in ledger.events(limit=3)] == newest[:3]
        assert [row.id for row in ledger.events("ada", limit=1)] == newest[1:2]

    def test_a_late_event_counts_in_the_window_it_names(self, ledger: Ledger, clock: FakeClock) -> None:
        """An event that arrives after its billing period ended adds to that period alone."""
        process = Process(ledger)
        old = process.ask()
        clock.advance(40 * 86_400)
        new = process.ask(events=[event(old, 50)])
        assert ledger.totals("ada")[bucket_in(old)] == 50
        assert new.posted.get(bucket_in(new), 0) == 0

    def test_totals_are_the_sum_of_the_rows(self, ledger: Ledger, other: Ledger, clock: FakeClock) -> None:
        """After mixed traffic from two processes, each total equals the sum of the event rows, exactly."""
        self.limit(ledger, 1e-6, model_limits={"m": {"max_tokens_per_period": 50}, "n": {}})
        rows = []
        for number in range(60):
            process = Process(ledger if number % 2 else other, "ada")
            row = event(process.ask(), number * 37 % 101, tokens=number, model="mn"[number % 3 % 2])
            rows.append(row)
            process.ask(events=[row], need={TOTAL_SPEND: 20})
            clock.advance(700)
        ledger.settle(rows[::7])
        stored = ledger.events("ada")
        assert len(stored) == 60
        assert ledger.totals("ada") == sums(stored) == sums(rows)

    def test_money_is_exact_beyond_the_floats(self, ledger: Ledger) -> None:
        """Amounts beyond 2**53 nano-dollars add up to the last one."""
        reply = Process(ledger).ask()
        ledger.settle([event(reply, 2**53 + 1, tokens=2**53 + 1), event(reply, 2, tokens=2)])
        totals = ledger.totals("ada")
        assert totals[bucket_in(reply)] == 2**53 + 3
        assert totals[bucket_in(reply, MODEL_LIMIT + "m")] == 2**53 + 3

    @pytest.mark.parametrize("name", sorted(STRANGE_IDS))
    def test_any_text_is_a_user(self, ledger: Ledger, name: str) -> None:
        """Any text up to 512 characters names a user of its own, also in sessions and models."""
        user = STRANGE_IDS[name]
        self.limit(ledger, 1.0)
        process = Process(ledger, user)
        row = event(process.ask(session_id=user), 9, model=user[:64])
        reply = process.ask(events=[row], need={TOTAL_SPEND: 10})
        Process(ledger, user + "'").ask(events=[event(Process(ledger, user + "'").ask(), 1)])
        assert reply.posted[bucket_in(reply)] == 9
        assert ledger.totals(user) == sums([row])
        assert [found.id for found in ledger.events(user)] == [row.id]
        assert [found.user_id for found in ledger.events(user)] == [user]

    def test_users_who_look_alike_are_apart(self, ledger: Ledger) -> None:
        """Users whose names differ in case, blanks, a NUL or composition share nothing."""
        names = ["ada", "Ada", "ada ", "ada\0", "a\u0301da", "\u00e1da"]
        for number, name in enumerate(names):
            ledger.settle([event(Process(ledger, name).ask(), 1 << number)])
        assert [sum(n for (s, _), n in ledger.totals(x).items() if s == TOTAL_SPEND) for x in names] == [
            1 << number for number in range(len(names))
        ]

    def test_concurrent_writers_count_each_event_once(
        self, make_ledger: MakeLedger, clock: FakeClock
    ) -> None:
        """Two processes that post the same and other events at once lose none and count none twice."""
        reply = Process(make_ledger(clock.now_us)).ask()
        shared = [event(reply, 1) for _ in range(40)]
        own = [[event(reply, 100) for _ in range(40)] for _ in range(2)]
        new: list[int] = []

        def write(number: int) -> None:
            ledger = make_ledger(clock.now_us)
            new.extend(ledger.settle(pair) for pair in zip(shared, own[number], strict=True))

        at_once(write, range(2))
        ledger = make_ledger(clock.now_us)
        assert sum(new) == 120
        assert len(ledger.events("ada")) == 120
        assert ledger.totals("ada")[bucket_in(reply)] == 40 + 80 * 100

    def test_a_closed_ledger_can_be_used_again(self, ledger: Ledger) -> None:
        """What is closed opens again when it is used, with everything in it."""
        reply = Process(ledger).ask()
        ledger.settle([event(reply, 3)])
        ledger.close()
        assert ledger.totals("ada")[bucket_in(reply)] == 3

    def test_the_pulse_tells_of_turns_or_nothing(self, ledger: Ledger, other: Ledger) -> None:
        """The pulse moves with others' turns, or with answers to this process, or says 0; it takes none."""
        assert ledger.pulse() == 0  # nothing is open yet
        Process(ledger).ask()
        before = ledger.pulse()
        time.sleep(0.02)  # the clocks of files stand still for some milliseconds
        Process(other).ask()
        Process(ledger).ask()
        assert (ledger.pulse() != before) is bool(before)
        ledger.close()
        assert ledger.pulse() == 0
