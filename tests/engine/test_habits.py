import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from engine_values import plan
from hypothesis import given
from hypothesis import strategies as st

from paygent.meter.habits import (
    LEARNED_AFTER,
    SIZES_KEPT,
    USERS_MODELS_MAX,
    Habits,
    OutputSizes,
    sizes_of,
    with_new,
)


def learned(sizes):
    output = OutputSizes()
    for size in sizes:
        output.learn(size)
    return output


def answer(output_tokens):
    return {
        "object": "chat.completion",
        "choices": [],
        "usage": {"prompt_tokens": 10, "completion_tokens": output_tokens},
    }


def converse(pg, user, output_tokens, times=LEARNED_AFTER, **options):
    for _ in range(times):
        pg.wrap(lambda: answer(output_tokens), user_id=user, model="m", provider="openai", **options)


@pytest.fixture
def pg(init):
    pg = init(ledger="memory://")
    pg.configure_plan("default", plan(1e9))
    return pg


def reserved(pg, user):
    """Tokens that a call without a cap of its own holds while it is made."""
    held = []

    def look():
        wallet = pg._meter.wallets[user]
        held.append(sum(p.held for p in wallet.purses.values() if p.scope == "model_limit:m"))
        return answer(0)

    pg.wrap(look, user_id=user, model="m", provider="openai")
    return held[0]


def test_nothing_is_believed_before_enough_answers():
    """Before eight answers there is no estimate, so that the plan's buffer holds."""
    assert learned([5] * (LEARNED_AFTER - 1)).estimate is None
    assert learned([5] * LEARNED_AFTER).estimate == 5


@given(st.lists(st.integers(0, 10**6), min_size=LEARNED_AFTER, max_size=200))
def test_the_estimate_covers_what_was_seen_lately(sizes):
    """Of the last 64 answers at most every twentieth was longer."""
    estimate = learned(sizes).estimate
    last = sizes[-SIZES_KEPT:]
    assert estimate in sizes
    assert sum(size > estimate for size in last) <= len(last) * 5 // 100


def test_an_under_estimate_teaches_the_next_call():
    """An answer longer than those before it is the estimate of the next call at once."""
    output = learned([10] * LEARNED_AFTER)
    output.learn(900)
    assert output.estimate == 900


def test_long_answers_are_forgotten():
    """Once answers are short again for a while, so is the estimate."""
    assert learned([9000] * 20 + [10] * (SIZES_KEPT + LEARNED_AFTER)).estimate == 10


def test_a_users_own_answers_come_first(pg):
    """A user whose answers are short reserves little, whatever others of the same model do."""
    converse(pg, "bob", 5000)
    converse(pg, "ada", 20)
    assert reserved(pg, "ada") < 100
    assert reserved(pg, "bob") > 5000


def test_a_new_user_reserves_what_the_model_teaches(pg):
    """Before a user has answers of his own, those of everybody count."""
    converse(pg, "bob", 700)
    assert 700 <= reserved(pg, "ada") <= 720


def test_answers_cut_short_by_a_cap_teach_nothing(pg):
    """Calls with a small cap of their own do not make the calls without one look small."""
    converse(pg, "ada", 3, estimated_max_tokens=3)
    assert reserved(pg, "ada") > 4096


def test_the_names_that_users_choose_do_not_pile_up():
    """Of one user a few models are remembered only."""
    sizes = ()
    for number in range(100):
        sizes = with_new(sizes, f"m{number}")
    assert len(sizes) == USERS_MODELS_MAX
    assert sizes_of(sizes, "m99") is sizes[-1]


@given(st.lists(st.tuples(st.integers(0, 10**4), st.integers(0, 10**6)), max_size=50))
def test_no_call_makes_text_look_larger_than_it_is(calls):
    """Whatever else was in the input of some calls, a byte of text is never taken for more than a token."""
    habits = Habits()
    for input_bytes, input_tokens in calls:
        habits.learn_input(input_bytes, input_tokens)
    assert 0.05 <= habits.tokens_per_byte <= 1


def test_text_becomes_tokens_as_finished_calls_show():
    """The share of tokens per byte moves towards what providers report."""
    habits = Habits()
    for _ in range(100):
        habits.learn_input(100, 50)
    assert habits.tokens_per_byte == pytest.approx(0.5, rel=0.01)


def test_threads_learn_at_once():
    """Answers that many threads note at the same moment raise nothing, and all are counted."""
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            for _ in range(200):
                output = OutputSizes()
                list(threads.map(output.learn, range(SIZES_KEPT, 0, -1)))
                list(threads.map(output.learn, range(SIZES_KEPT * 2)))
                assert output.estimate is not None
    finally:
        sys.setswitchinterval(interval_s)


def test_a_fault_in_learning_costs_no_event(pg, monkeypatch):
    """Whatever goes wrong while learning from an answer, the answer is counted, and the fault is told."""
    monkeypatch.setattr(OutputSizes, "learn", lambda *_: 1 / 0)
    converse(pg, "ada", 5, times=1)
    pg.flush()
    assert pg.get_usage("ada").period_tokens_total == 15
    assert pg.queue_stats["last_error"] == "a fault while learning from an answer"
