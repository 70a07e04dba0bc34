"""Connected mode against a backend that misbehaves over real HTTP."""

import logging
import time
from collections import Counter

import pytest
from moody_server import API, KEY, MOODS, MoodyServer
from openai.types.chat import ChatCompletion

from paygent import PaygentLimitExceeded, PlanConfig
from paygent.core.models import ModelCostRate

MODEL = "gpt-4o-mini"
COST_NUSD = 100_000  # of one call: 100 tokens at a dollar for a million
DAY_US = 86_400_000_000


def answer():
    return ChatCompletion.model_validate(
        {
            "id": "c", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [],
            "usage": {"prompt_tokens": 60, "completion_tokens": 40, "total_tokens": 100},
        }
    )  # fmt: skip


def call(pg, user_id):
    """One metered call."""
    pg.wrap(
        answer,
        user_id=user_id,
        model=MODEL,
        provider="openai",
        estimated_input_tokens=60,
        estimated_max_tokens=40,
    )


def limited(server, calls):
    """Everybody may make this many calls in a period, one after the other."""
    plan = PlanConfig(
        max_spend_per_period=calls * COST_NUSD / 1e9,
        cost_rates={MODEL: ModelCostRate(input=0.001, output=0.001)},
    )
    server.ledger.put_plan("default", plan.model_dump_json())


def wait_until(pg, condition):
    ends_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends_s, pg.queue_stats
        pg.flush()
        time.sleep(0.05)


def spent(server, user_id):
    return sum(
        amount for (scope, _), amount in server.ledger.totals(user_id).items() if scope == "total_spend"
    )


@pytest.mark.parametrize("mood", MOODS)
def test_an_outage_costs_neither_calls_nor_events(server, connected, short_pauses, mood, ledger_waits):
    """
    Through every kind of failure calls of known and of new users go on, and one of them waits at most.

    Afterwards each of them is at the backend once.
    """
    limited(server, 1000)
    pg = connected(server)
    for _ in range(3):
        call(pg, "ada")
    wait_until(pg, lambda: len(server.ledger.events()) == 3)
    server.mood = mood
    users = ["ada", "new-1", "ada", "new-2", "ada", "new-1", "ada"]
    waited = 0
    for _ in range(2):
        ledger_waits.forget()
        for user_id in users:
            call(pg, user_id)
        waited += len(ledger_waits)
        pg.flush()
    assert waited <= 1
    server.mood = "well"
    wait_until(pg, lambda: len(server.ledger.events()) >= 17 and not pg.pending_events)
    assert len(server.ledger.events()) == 17
    by_user = Counter(event.user_id for event in server.ledger.events())
    assert by_user == {"ada": 11, "new-1": 4, "new-2": 2}
    assert spent(server, "ada") == 11 * COST_NUSD
    for user_id in by_user:  # one who was met in the outage was priced without his plan
        assert spent(server, user_id) == sum(event.cost_nusd for event in server.ledger.events(user_id))
    assert pg.queue_stats["dropped"] == 0


@pytest.mark.parametrize("mood", MOODS)
def test_events_of_a_process_that_ends_in_an_outage_are_delivered_by_the_next(
    server, connected, short_pauses, mood
):
    """What the first process could not deliver is in its journal, and the next one brings it, once."""
    first = connected(server)
    call(first, "ada")
    wait_until(first, lambda: len(server.ledger.events()) == 1)
    server.mood = mood
    for _ in range(4):
        call(first, "ada")
    first.shutdown(1.0)
    server.mood = "well"
    second = connected(server)
    wait_until(second, lambda: len(server.ledger.events()) >= 5)
    call(second, "ada")
    wait_until(second, lambda: len(server.ledger.events()) >= 6)
    assert len(server.ledger.events()) == 6
    assert spent(server, "ada") == sum(event.cost_nusd for event in server.ledger.events())


@pytest.mark.parametrize("mood", ["refuses connections", "answers 500", "answers other JSON"])
def test_the_snapshot_bounds_who_was_never_seen_by_this_process(server, connected, short_pauses, mood):
    """Six of ten calls were made before: with the backend away, a new process admits four and no fifth."""
    limited(server, 10)
    first = connected(server)
    for _ in range(6):
        call(first, "ada")
    wait_until(first, lambda: len(server.ledger.events()) == 6)
    first.shutdown()
    server.mood = mood
    second = connected(server)
    for _ in range(4):
        call(second, "ada")
    with pytest.raises(PaygentLimitExceeded):
        call(second, "ada")


def test_an_expired_snapshot_keeps_the_plan_and_not_the_usage(connected, short_pauses, tmp_path):
    """The snapshot is of a period that is over: the plan binds, and all of its ten calls are there again."""
    server = MoodyServer(now_us=lambda: time.time_ns() // 1000 - 40 * DAY_US)
    limited(server, 10)
    first = connected(server)
    for _ in range(10):
        call(first, "ada")
    wait_until(first, lambda: len(server.ledger.events()) == 10)
    first.shutdown()
    server.mood = "refuses connections"
    second = connected(server)
    for _ in range(10):
        call(second, "ada")
    with pytest.raises(PaygentLimitExceeded):
        call(second, "ada")
    server.stop()


def test_who_is_nowhere_known_is_let_through(server, connected, short_pauses):
    """Without a snapshot and without a backend the call goes on, and is delivered later."""
    server.mood = "refuses connections"
    pg = connected(server)
    call(pg, "eve")
    server.mood = "well"
    wait_until(pg, lambda: len(server.ledger.events("eve")) == 1)


def test_a_plan_binds_again_after_the_outage(server, connected, short_pauses):
    """What was spent while the backend was away counts: the cap is met with the first call that asks."""
    limited(server, 5)
    pg = connected(server)
    call(pg, "ada")
    wait_until(pg, lambda: len(server.ledger.events()) == 1)
    server.mood = "answers 500"
    for _ in range(4):
        call(pg, "ada")
    with pytest.raises(PaygentLimitExceeded):
        call(pg, "ada")
    server.mood = "well"
    wait_until(pg, lambda: len(server.ledger.events()) == 5)
    with pytest.raises(PaygentLimitExceeded):
        call(pg, "ada")
    assert spent(server, "ada") == 5 * COST_NUSD


@pytest.mark.parametrize("mood", MOODS)
def test_the_key_is_in_no_log(server, connected, short_pauses, mood, caplog):
    """However the backend fails, and at every level of every logger, the key is not written down."""
    with caplog.at_level(logging.DEBUG):
        pg = connected(server)
        call(pg, "ada")
        server.mood = mood
        call(pg, "new")
        pg.flush()
    assert f"Bearer {KEY}" in server.keys
    assert KEY not in caplog.text
    assert KEY not in str(pg.queue_stats)


def test_a_redirect_is_not_followed(server, connected, short_pauses):
    """Nobody whom the backend points to is given the key or an event."""
    other = MoodyServer()
    pg = connected(server)
    server.elsewhere, server.mood = other.url + API + "/leases", "redirects"
    call(pg, "ada")
    pg.flush()
    assert other.asked == []
    other.stop()


def test_a_proxy_that_takes_less_than_a_batch_is_sent_less(server, connected, short_pauses):
    """After an outage, what a proxy refuses as too large, in HTML, comes in parts: all of it, and once."""
    server.mood, server.body_max = "answers 500", 60_000
    pg = connected(server)
    for number in range(120):
        pg.record_event(f"user-{number % 3}", cost=0.01, metadata={"document": "x" * 1500})
    server.mood = "well"
    wait_until(pg, lambda: len(server.ledger.events()) == 120)
    assert {spent(server, f"user-{number}") for number in range(3)} == {400_000_000}
    wait_until(pg, lambda: not pg.queue_stats["degraded"])
    assert pg.pending_events == pg.queue_stats["dropped"] == 0


def test_an_event_that_a_proxy_never_takes_holds_up_no_other(server, connected, short_pauses, caplog):
    """One event that is too large by itself is set aside, with its id in the log, and the others come."""
    server.body_max = 20_000
    pg = connected(server)
    pg.record_event("ada", cost=0.5)
    pg.record_event("ada", cost=0.5, metadata={"document": "x" * 30_000})
    pg.record_event("ada", cost=0.5)
    wait_until(pg, lambda: spent(server, "ada") == 1_000_000_000)
    wait_until(pg, lambda: "cannot be stored (RejectedError: 413" in caplog.text)


def test_a_proxy_that_takes_nothing_is_an_outage(server, connected, short_pauses, caplog):
    """Where even a small body is too large, nobody's events are set aside: they come once it is mended."""
    server.body_max = 1
    pg = connected(server)
    call(pg, "ada")
    pg.flush()
    assert pg.queue_stats["degraded"]
    server.body_max = 1_000_000
    wait_until(pg, lambda: len(server.ledger.events("ada")) == 1)
    assert "cannot be stored" not in caplog.text


@pytest.mark.parametrize(
    "said", [{"description": "x" * 20_000}, {"metadata": {"feature": "chat \ud800"}}], ids=["long", "odd"]
)
def test_an_event_is_not_lost_for_what_is_said_of_it(server, connected, said):
    """A text that is longer than the backend takes is cut, one that nobody can store is mended: it counts."""
    pg = connected(server)
    pg.record_event("ada", cost=0.5, **said)
    wait_until(pg, lambda: spent(server, "ada"))
    assert spent(server, "ada") == 500_000_000
    assert pg.queue_stats["dropped"] == 0
