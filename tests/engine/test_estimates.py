from concurrent.futures import ThreadPoolExecutor

from engine_values import ANSWER, plan

from paygent import PaygentLimitExceeded
from paygent.context import Payer
from paygent.core.usage import Usage


def test_a_given_estimate_is_taken_as_it_is(init):
    """However many calls were made with an estimate, the next one reserves exactly what it was told."""
    pg = init(ledger="memory://")
    pg.configure_plan("default", plan(100_000))
    pg.configure_plan("one", plan(1))
    pg.assign_plan("bob", "one")
    options = {"model": "m", "provider": "openai", "estimated_input_tokens": 10, "estimated_max_tokens": 0}
    for _ in range(500):
        pg.wrap(lambda: ANSWER, user_id="ada", **options)
    assert pg.wrap(lambda: ANSWER, user_id="bob", **options) is ANSWER


def test_a_given_estimate_is_the_same_for_every_thread(init):
    """Threads that call at once with exact estimates make exactly the calls that the plan covers."""
    pg = init(ledger="memory://")
    pg.configure_plan("default", plan(300))
    options = {"model": "m", "provider": "openai", "estimated_input_tokens": 10, "estimated_max_tokens": 0}

    def run(_):
        made = 0
        while made <= 300:
            try:
                pg.wrap(lambda: ANSWER, user_id="ada", **options)
                made += 1
            except PaygentLimitExceeded as refused:
                if not refused.retryable:
                    break
        return made

    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(run, range(16))) == 300


def test_a_given_estimate_teaches_nothing_about_bytes(init):
    """Calls whose input was given in tokens leave alone what is believed of the model's tokens per byte."""
    pg = init(ledger="memory://")
    pg.configure_plan("default", plan(100_000))
    before = pg._meter.habits("m").tokens_per_byte
    for _ in range(200):
        pg.wrap(
            lambda: ANSWER,
            user_id="ada",
            model="m",
            provider="openai",
            estimated_input_tokens=10,
            estimated_max_tokens=0,
        )
    assert pg._meter.habits("m").tokens_per_byte == before


def test_a_report_of_nothing_is_estimated(init):
    """A provider who reports zeros for a stream says nothing: it is settled as far as it is known."""
    pg = init(ledger="memory://")
    pg.configure_plan("default", plan(100))
    with pg._meter.call(Payer("ada"), "openai", "chat", "m", 400, 9) as bracket:
        bracket.defer()
    bracket.finish(Usage(), "m-2", ("search",))
    assert not bracket.is_open
    (event,) = bracket.wallet.events
    assert (event.estimated, event.response_model, event.tool_calls) == (1, "m-2", ("search",))
    assert (event.input_tokens, event.output_tokens) == (101, 1)
