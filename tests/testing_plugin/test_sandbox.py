"""The sandbox, as an app's tests use it: real SDKs, scripted answers, a clock and a ledger that can fail."""

from __future__ import annotations

import os

import anthropic
import httpx
import openai
import pytest

from paygent import (
    ModelCostRate,
    Paygent,
    PaygentLimitExceeded,
    PaygentUnavailable,
    PlanConfig,
    paygent_context,
)
from paygent.testing.llm_server import LLMServer
from paygent.testing.sandbox import sandbox

# One dollar per 1 000 tokens in, two per 1 000 tokens out.
PLAN = PlanConfig(max_spend_per_period=10.0, default_cost_rate=ModelCostRate(input=1.0, output=2.0))
CLAUDE = {"model": "claude-haiku-4-5", "max_tokens": 100}
MESSAGES = [{"role": "user", "content": "Hi"}]

older_client = openai.OpenAI(api_key="made before any sandbox", max_retries=0)


@pytest.fixture
def box(paygent_sandbox):
    paygent_sandbox.pg.configure_plan("default", PLAN)
    return paygent_sandbox


def ask(client=None, user="ann", **more):
    client = client or openai.OpenAI(max_retries=0)
    with paygent_context(user):
        return client.chat.completions.create(**{"model": "gpt-4o", "messages": MESSAGES, **more})


# --- the provider -------------------------------------------------------------------------------------------


def test_the_next_answers_are_as_scripted(box, paygent_provider, assert_spend):
    """Text and tokens of the next call are the test's; the call costs what these tokens cost."""
    paygent_provider.reply("Hello, Ann!", tokens=(1000, 500))
    answer = ask()
    assert answer.choices[0].message.content == "Hello, Ann!"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (1000, 500)
    assert_spend("ann", 2.0)


def test_a_script_is_used_up_in_order(box, paygent_provider, assert_spend):
    """Each call takes one line of the script, then the provider answers by itself again."""
    paygent_provider.reply(tokens=(1000, 0), times=2)
    paygent_provider.reply(tokens=(2000, 0))
    for _ in range(3):
        ask()
    assert_spend("ann", 4.0)
    assert ask().choices[0].message.content


def test_a_stream_is_scripted_too(box, paygent_provider, assert_spend):
    """A stream brings the text piece by piece, and is charged once."""
    paygent_provider.reply("One two three", tokens=(100, 50))
    chunks = list(ask(stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "One two three"
    assert_spend("ann", 0.2)


def test_both_sdks_sync_and_async_are_answered(box, paygent_provider):
    """Every client of both SDKs asks the provider of the sandbox."""
    import asyncio

    async def later():
        async with openai.AsyncOpenAI() as client, anthropic.AsyncAnthropic() as other:
            await client.responses.create(model="gpt-4o", input="Hi")
            await other.messages.create(messages=MESSAGES, **CLAUDE)

    with paygent_context("ann"):
        anthropic.Anthropic().messages.create(messages=MESSAGES, **CLAUDE)
        openai.OpenAI().embeddings.create(model="text-embedding-3-small", input="Hi")
        asyncio.run(later())
    paths = [request.path for request in paygent_provider.requests]
    assert paths == ["/v1/messages", "/v1/embeddings", "/v1/responses", "/v1/messages"]
    assert len(box.events("ann")) == 4


def test_a_client_made_before_the_sandbox_is_answered(box, assert_spend):
    """Apps make their client when they are imported: it sends nothing either."""
    box.provider.reply(tokens=(1000, 0))
    ask(older_client)
    assert_spend("ann", 1.0)


def test_a_failure_is_the_sdks_error_and_costs_nothing(box, paygent_provider, assert_spend):
    """A scripted status comes out as the SDK's own error, without its retries."""
    paygent_provider.fail(529)
    with pytest.raises(openai.APIStatusError) as failed:
        ask(openai.OpenAI())
    assert failed.value.status_code == 529
    assert len(paygent_provider.requests) == 1
    assert_spend("ann", 0.0)


def test_a_delay_is_the_providers(box, paygent_provider):
    """The app's time-out fires when the answer takes longer."""
    paygent_provider.reply(delay_s=5.0)
    with pytest.raises(openai.APITimeoutError):
        ask(timeout=0.05)


def test_other_http_goes_where_it_always_went(box):
    """Only the two SDKs are answered: the app's own requests are not."""
    with LLMServer() as server:
        answer = httpx.get(f"{server.url}/v1/models", trust_env=False)
        assert answer.status_code == 200
        assert len(server.requests) == 1


# --- what was spent -----------------------------------------------------------------------------------------


def test_a_wrong_spend_says_what_was_spent(box, assert_spend):
    """The message lists the user's calls, so that one sees which is missing."""
    box.provider.reply(tokens=(1000, 500))
    ask()
    with pytest.raises(
        AssertionError, match=r"'ann' spent \$2.0+, not \$3.0+\n.* gpt-4o.* 1000 \+ 500 tokens"
    ):
        assert_spend("ann", 3.0)
    with pytest.raises(AssertionError, match="no call of this user was metered"):
        assert_spend("ben", 3.0)


def test_a_spent_user_is_blocked(box, assert_blocked):
    """Once the plan is spent the assertion holds, and the call is refused unsent."""
    with pytest.raises(AssertionError, match="'ann' is not blocked"):
        assert_blocked("ann")
    box.provider.reply(tokens=(10_000, 0))
    ask()
    assert_blocked("ann")
    with pytest.raises(PaygentLimitExceeded):
        ask()
    assert len(box.provider.requests) == 1


def test_each_test_starts_from_nothing(box, assert_spend):
    """The ledger is this test's own."""
    assert_spend("ann", 0.0)
    assert box.events() == []


# --- time ---------------------------------------------------------------------------------------------------


def test_a_new_period_begins_after_a_month(box, assert_spend, assert_blocked):
    """Travelling a month resets the period: the user may spend again."""
    box.provider.reply(tokens=(10_000, 0))
    ask()
    box.travel(days=1)
    assert_blocked("ann")
    box.travel(days=30)
    assert_spend("ann", 0.0)
    ask()
    assert [event.timestamp.month for event in box.events("ann")] != [box.now.month] * 2


def test_a_session_ends(box):
    """Half an hour later the user is in another session."""
    ask()
    box.travel(minutes=31)
    ask()
    first, second = (event.session_id for event in box.events("ann"))
    assert first != second


def test_nobody_travels_back(box):
    """A ledger cannot follow a clock that goes back: the test hears so."""
    with pytest.raises(ValueError, match="forward"):
        box.travel(days=-1)


# --- the ledger ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["fail", "stall"])
def test_the_app_goes_on_while_the_ledger_is_away(box, fault, assert_spend):
    """With ``fail_open`` calls pass before it is back; what they cost is there when it is."""
    getattr(box.ledger, fault)()
    box.provider.reply(tokens=(1000, 0))
    ask()
    box.ledger.recover()
    assert_spend("ann", 1.0)


def test_an_app_that_fails_closed_can_be_tried(paygent_sandbox):
    """With ``fail_open=False`` the app meets ``PaygentUnavailable``."""
    Paygent.init(fail_open=False)
    paygent_sandbox.ledger.fail()
    with pytest.raises(PaygentUnavailable):
        ask()
    paygent_sandbox.ledger.recover()
    assert ask().choices


def test_a_stalled_ledger_does_not_hold_up_the_end_of_the_test():
    """A sandbox that is left with its ledger stalled ends by itself, without anybody who lets go of it."""
    with sandbox() as box:
        box.ledger.stall()
        ask()
    assert Paygent.get_instance() is None


# --- the app's own Paygent ----------------------------------------------------------------------------------


def test_an_app_that_calls_init_gets_the_sandboxs_ledger(paygent_sandbox, tmp_path, assert_spend):
    """Whatever ledger and key the app asks for, nothing leaves the test; its other options hold."""
    pg = Paygent.init("pg_live_key", db_path=tmp_path / "real.db", raise_on_hard_gate=False)
    pg.configure_plan("default", PLAN)
    paygent_sandbox.provider.reply(tokens=(20_000, 0), times=2)
    ask()
    ask()  # beyond the limit
    assert paygent_sandbox.pg is pg
    assert_spend("ann", 40.0)
    assert not (tmp_path / "real.db").exists()


def test_an_app_that_was_started_before_keeps_its_object(tmp_path):
    """A module-level ``pg`` works inside with its plans, options and callbacks, and is itself afterwards."""
    pg = Paygent.init(db_path=tmp_path / "own.db", raise_on_hard_gate=False)
    pg.configure_plan("default", PLAN)
    pg.record_event("ann", cost=1.0)
    seen = []
    pg.on_usage(lambda event: seen.append(event.cost_total))
    with sandbox() as box:
        box.provider.reply(tokens=(20_000, 0), times=2)
        ask()
        ask()
        assert box.pg is pg
        assert pg.get_usage("ann").period_cost == pytest.approx(40.0)
    assert seen == [20.0, 20.0]
    assert pg.get_usage("ann").period_cost == pytest.approx(1.0)
    pg.shutdown()


def test_an_app_that_shuts_down_can_still_be_asked(box, assert_spend):
    """After the app's own shutdown the test can check what was spent."""
    box.provider.reply(tokens=(1000, 0))
    ask()
    box.pg.shutdown()
    assert_spend("ann", 1.0)


def test_afterwards_all_is_as_before():
    """The sandbox leaves neither keys nor patches nor an instance behind."""
    import httpx2

    before = dict(os.environ), httpx2.HTTPTransport.handle_request, httpx.HTTPTransport.handle_request
    with sandbox():
        assert os.environ["OPENAI_API_KEY"]
        assert httpx2.HTTPTransport.handle_request is not before[1]
    after = dict(os.environ), httpx2.HTTPTransport.handle_request, httpx.HTTPTransport.handle_request
    assert after == before
    assert Paygent.get_instance() is None
