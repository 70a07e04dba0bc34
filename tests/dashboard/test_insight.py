"""The contract of ``paygent.insight.Insight``, over every ledger that keeps it."""

import random
import sys

import pytest
from dashboard_world import ODD, event

from paygent.core.windows import billing_period
from paygent.insight import DAY_US, DaySum, GateSum, Insight, Spender, after_prefix
from paygent.ledger import GateRow, LeaseRequest
from paygent.ledgers import open_ledger

DAY = 20_500
NOON_US = DAY * DAY_US + DAY_US // 2
IDS = ["a", "ab", "abc", "b", "a\x00", "a\x01", "é", ODD, "\U0010ffff", "\U0010ffffx", "ÿ"]


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def ledger(request, tmp_path):
    url = {
        "memory": lambda: "memory://",
        "sqlite": lambda: f"sqlite:///{tmp_path / 'p.db'}",
        "postgres": lambda: request.getfixturevalue("postgres_url"),
    }[request.param]()
    opened = open_ledger(url)
    yield opened
    opened.close()


def made(user_id, at_us, model, cost_nusd, **changes):
    period = billing_period(None, at_us)
    return event(
        random.Random(f"{user_id}{at_us}{model}"), user_id, at_us, period, model, cost_nusd
    )._replace(**{"input_tokens": 3, "output_tokens": 1, "estimated": 0, "metadata": None, **changes})


def gate(number, user_id, at_us, reason, *, blocked, count=1):
    status = "hard_gate" if blocked else "soft_gate"
    return GateRow(
        f"g{number}",
        user_id,
        at_us,
        None,
        status,
        reason,
        1.0,
        1.0,
        1.0,
        None,
        int(blocked),
        None,
        None,
        count,
    )


def test_stores_say_that_they_can(ledger):
    """Memory, SQLite and PostgreSQL are recognised as stores that answer questions over all users."""
    assert isinstance(ledger, Insight)


def test_days_are_summed_by_model(ledger):
    """Calls, tokens, cost and the estimated part are added up by day in UTC and by model."""
    ledger.settle(
        [
            made("ada", NOON_US, "m", 5),
            made("ben", NOON_US + 1, "m", 7, estimated=1, cost_tools_nusd=2),
            made("ada", NOON_US + 2, None, 1),
            made("ada", NOON_US - DAY_US, "m", 11),
        ]
    )
    assert ledger.day_sums(NOON_US - DAY_US, NOON_US + DAY_US) == [
        DaySum(DAY - 1, "m", 1, 4, 11, 0),
        DaySum(DAY, None, 1, 4, 1, 0),
        DaySum(DAY, "m", 2, 8, 14, 9),
    ]


def test_a_range_has_its_start_and_not_its_end(ledger):
    """An event at the first microsecond counts, one at the end does not."""
    ledger.settle([made("ada", NOON_US, "m", 5), made("ada", NOON_US + 10, "n", 7)])
    assert [row.model for row in ledger.day_sums(NOON_US, NOON_US + 10)] == ["m"]
    assert ledger.top_users(NOON_US, NOON_US + 10) == [Spender("ada", 1, 5)]


def test_sums_of_one_user_hold_nobody_elses(ledger):
    """With a user id, whatever it holds, only his events and decisions are added up."""
    ledger.settle([made(ODD, NOON_US, "m", 5), made("ada", NOON_US, "m", 7)])
    ledger.record_gates(
        [gate(1, ODD, NOON_US, "total_spend", blocked=True), gate(2, "ada", NOON_US, None, blocked=True)]
    )
    assert ledger.day_sums(0, NOON_US + 1, ODD) == [DaySum(DAY, "m", 1, 4, 5, 0)]
    assert ledger.gate_sums(0, NOON_US + 1, ODD) == [GateSum(DAY, "total_spend", 1, 0)]


def test_decisions_are_summed_by_reason(ledger):
    """Rows that stand for many calls count as many; refused and warned are apart."""
    ledger.record_gates(
        [
            gate(1, "ada", NOON_US, "total_spend", blocked=True, count=40),
            gate(2, "ben", NOON_US, "total_spend", blocked=True),
            gate(3, "ben", NOON_US, "total_spend", blocked=False, count=2),
            gate(4, "ben", NOON_US + DAY_US, None, blocked=True),
        ]
    )
    assert ledger.gate_sums(0, NOON_US + 2 * DAY_US) == [
        GateSum(DAY, "total_spend", 41, 2),
        GateSum(DAY + 1, None, 1, 0),
    ]


def test_top_users_come_in_the_order_of_their_spend(ledger):
    """The most first, alike ones by id, and no more than asked for."""
    ledger.settle([made(name, NOON_US, "m", cost) for name, cost in zip("abcd", (3, 9, 3, 1), strict=True)])
    assert [one.user_id for one in ledger.top_users(0, NOON_US + 1, 3)] == ["b", "a", "c"]


def test_nothing_is_an_empty_answer(ledger):
    """An empty store answers every question with nothing."""
    assert (ledger.users(), ledger.users_by_plan(), ledger.day_sums(0, NOON_US)) == ([], {}, [])
    assert (ledger.gate_sums(0, NOON_US), ledger.top_users(0, NOON_US)) == ([], [])


def test_users_are_paged_without_gap_or_repeat(ledger):
    """Pages by key hold every user once, in the order of code points, whatever the ids hold."""
    for user_id in IDS:
        ledger.put_account(user_id, {})
    seen, after = [], None
    while page := ledger.users("", after, 2):
        seen += page
        after = page[-1]
    assert seen == sorted(IDS)


@pytest.mark.parametrize("prefix", ["a", "ab", "a\x00", "\U0010ffff", "é", "org/42?x=#", "%", "_", "zz"])
def test_a_prefix_is_no_pattern(ledger, prefix):
    """A prefix finds the ids that begin with it, on every page, and its characters mean nothing else."""
    for user_id in IDS:
        ledger.put_account(user_id, {})
    expected = [user_id for user_id in sorted(IDS) if user_id.startswith(prefix)]
    assert ledger.users(prefix) == expected
    assert ledger.users(prefix, "aa") == [user_id for user_id in expected if user_id > "aa"]


def test_who_was_only_posted_for_is_listed(ledger):
    """A user of whom the store has nothing but events is a user."""
    ledger.settle([made("ada", NOON_US, "m", 5)])
    assert ledger.users("a") == ["ada"]


def test_users_are_counted_by_plan(ledger):
    """Each user counts for the plan assigned to him, those without one for none."""
    ledger.put_account("ada", {"plan": "pro"})
    ledger.put_account("ben", {"plan": "pro"})
    ledger.put_account("eve", {})
    assert ledger.users_by_plan() == {"pro": 2, None: 1}


def test_a_handle_beside_sees_what_is_written_and_closes_alone(ledger):
    """A second handle reads what the first has written; closing it leaves the first as it was."""
    beside = ledger.beside()
    ledger.lease([LeaseRequest("ada", "w", 1, begin_session=True)])
    assert beside.users() == ["ada"]
    beside.close()
    assert ledger.users() == ["ada"]


@pytest.mark.parametrize("text", ["a", "az", "\ud7ff", "\U0010ffff", "a\U0010ffff", "", "\x00"])
def test_the_text_behind_a_prefix_is_the_first_one(text):
    """Nothing that begins with the prefix is behind it, and no text fits between."""
    end = after_prefix(text)
    longest = text + chr(sys.maxunicode) * 3
    if end is None:
        assert not text.rstrip(chr(sys.maxunicode))
    else:
        assert longest < end
        end.encode()
        assert end[-1] == "\ue000" or chr(ord(end[-1]) - 1) == text.rstrip(chr(sys.maxunicode))[-1]
