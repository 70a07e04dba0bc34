"""``wrap`` and ``awrap``."""

from __future__ import annotations

import asyncio
import inspect

import pytest
from api_world import MESSAGES, answer, ask, async_openai_client, events, openai_client, plan, spend

from paygent import Paygent, PaygentLimitExceeded, paygent_context, paygent_exempt
from paygent.testing.transport import stub_http_client


@pytest.fixture
def capped(pg):
    """A Paygent whose default plan allows one dollar."""
    pg.configure_plan("default", plan(max_spend_per_period=1.0))
    return pg


def test_wrap_returns_the_result_and_counts_it(capped):
    """The result is handed through as it is, its usage is priced by the plan."""
    result = answer()
    assert capped.wrap(lambda: result, user_id="ann", model="gpt-4o") is result
    usage = capped.get_usage("ann")
    assert (usage.period_cost, usage.period_tokens_by_model) == (0.04, {"gpt-4o": 2000})


def test_wrap_around_a_patched_sdk_counts_once(capped):
    """The seam within a bracket knows that the bracket counts already."""
    capped.wrap(lambda: ask(openai_client()), user_id="ann", model="gpt-4o")
    assert [event.operation for event in events(capped)] == ["wrap"]


def test_wrap_inside_a_context_counts_once_for_its_own_user(capped):
    """``wrap(user_id=)`` wins over the context, and the context counts nothing beside it."""
    with paygent_context("bob"):
        capped.wrap(lambda: ask(openai_client()), user_id="ann", model="gpt-4o")
    assert [event.user_id for event in events(capped)] == ["ann"]


def test_a_wrap_within_a_wrap_counts_once(capped):
    """The outermost bracket counts what happens inside."""
    capped.wrap(lambda: capped.wrap(answer, user_id="bob", model="gpt-4o"), user_id="ann", model="gpt-4o")
    assert [event.user_id for event in events(capped)] == ["ann"]


def test_the_context_is_the_callers_again_after_wrap(capped):
    """A call after ``wrap`` belongs to the context it was made in."""
    with paygent_context("bob"):
        capped.wrap(answer, user_id="ann", model="gpt-4o")
        ask(openai_client())
    assert [event.user_id for event in events(capped)] == ["ann", "bob"]


def test_wrap_within_exempt_passes_unmetered(capped):
    """``paygent_exempt`` covers every call of its block."""
    with paygent_exempt():
        capped.wrap(answer, user_id="ann", model="gpt-4o")
    assert events(capped) == []


def test_without_a_model_it_is_taken_from_the_response(capped):
    """``model=None``: price and per-model tokens go by what answered."""
    capped.wrap(answer, user_id="ann")
    usage = capped.get_usage("ann")
    assert usage.period_cost_by_model == {"gpt-4o": 0.04}
    assert usage.period_tokens_by_model == {"gpt-4o": 2000}


def test_session_and_metadata_are_on_the_event(capped):
    """``session_id`` names a session of its own, ``metadata`` goes with the event."""
    seen = []
    capped.on_usage(seen.append)
    capped.wrap(answer, user_id="ann", model="gpt-4o", session_id="chat-7", metadata={"feature": "sum"})
    assert (seen[0].session_id, seen[0].metadata) == ("chat-7", {"feature": "sum"})


def test_a_refused_wrap_does_not_make_the_call(capped):
    """A closed gate raises before the callable runs."""
    spend(capped, "ann", 1.0)
    made = []
    with pytest.raises(PaygentLimitExceeded) as caught:
        capped.wrap(lambda: made.append(1), user_id="ann", model="gpt-4o")
    assert made == []
    assert caught.value.guard_result.gate_reason == "total_spend"


def test_estimates_size_the_reservation(capped):
    """The hold of a call in flight is its estimated tokens at the plan's rate, times the safety factor."""
    held = []

    def call():
        held.append(capped.get_usage("ann"))
        return answer()

    capped.wrap(call, user_id="ann", model="gpt-4o", estimated_input_tokens=1000, estimated_max_tokens=500)
    assert held[0].reserved_cost == pytest.approx((0.01 + 0.015) * 1.2, rel=1e-6)
    assert held[0].reserved_tokens_by_model == {"gpt-4o": 1800}
    assert capped.get_usage("ann").reserved_cost == 0.0


@pytest.mark.parametrize("name", ["estimated_input_tokens", "estimated_max_tokens"])
def test_a_negative_estimate_is_refused(capped, name):
    """A negative estimate would shrink the reservation: it is named and refused."""
    with pytest.raises(ValueError, match=name):
        capped.wrap(answer, user_id="ann", model="gpt-4o", **{name: -1})


def test_an_unknown_provider_is_a_value_error(capped):
    """The message lists those that are known; the call is not made."""
    made = []
    with pytest.raises(ValueError, match="unknown provider 'mistral'; there are openai, anthropic"):
        capped.wrap(lambda: made.append(1), user_id="ann", provider="mistral")
    assert made == []


def test_wrap_meters_a_stream_when_it_ends(capped):
    """A stream is returned as the SDK's own object, and settled by its usage chunk."""
    client = stub_http_client("openai")
    import openai

    stream = capped.wrap(
        lambda: openai.OpenAI(api_key="x", http_client=client).chat.completions.create(
            model="gpt-4o", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        ),
        user_id="ann",
        model="gpt-4o",
    )
    assert isinstance(stream, openai.Stream)
    assert events(capped) == []
    reported = next(chunk.usage for chunk in stream if chunk.usage)
    [event] = events(capped)
    assert (event.input_tokens, event.output_tokens) == (reported.prompt_tokens, reported.completion_tokens)


def test_wrap_meters_a_raw_response(capped):
    """``with_raw_response`` is read without being consumed."""
    client = openai_client()
    raw = capped.wrap(
        lambda: client.chat.completions.with_raw_response.create(model="gpt-4o", messages=MESSAGES),
        user_id="ann",
        model="gpt-4o",
    )
    assert raw.parse().choices[0].message.content == "Hello"
    assert capped.get_usage("ann").period_cost == 0.04


def test_a_result_that_nobody_can_read_is_posted_as_an_estimate(capped):
    """Unknown never becomes zero: the event is marked and costs something."""
    capped.wrap(object, user_id="ann", model="gpt-4o", estimated_input_tokens=1000)
    [event] = events(capped)
    assert event.estimated
    assert event.cost_nusd > 0


def test_an_error_of_the_call_reaches_the_caller_and_costs_nothing(capped):
    """What the callable raises is raised, and its hold is freed."""
    with pytest.raises(ZeroDivisionError):
        capped.wrap(lambda: 1 / 0, user_id="ann", model="gpt-4o")
    usage = capped.get_usage("ann")
    assert (usage.period_cost, usage.reserved_cost) == (0.0, 0.0)


async def test_awrap_returns_the_result_and_counts_it(capped):
    """``awrap`` takes the coroutine of the async SDK and counts it once."""
    client = async_openai_client()
    result = await capped.awrap(
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES), user_id="ann", model="gpt-4o"
    )
    assert result.usage.total_tokens == 2000
    assert [event.operation for event in events(capped)] == ["wrap"]


async def test_a_refused_awrap_closes_the_coroutine(capped):
    """The coroutine of a refused call is closed, so that Python does not warn that it was never awaited."""
    spend(capped, "ann", 1.0)

    async def call():
        raise AssertionError("the call was made")

    coroutine = call()
    with pytest.raises(PaygentLimitExceeded):
        await capped.awrap(coroutine, user_id="ann", model="gpt-4o")
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


async def test_an_awrap_with_bad_arguments_closes_the_coroutine(capped):
    """Also where an argument is refused, nothing is left unawaited."""

    async def call():
        raise AssertionError("the call was made")

    coroutine = call()
    with pytest.raises(ValueError, match="unknown provider"):
        await capped.awrap(coroutine, user_id="ann", provider="mistral")
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


async def test_a_refused_awrap_cancels_a_task(capped):
    """A task that was handed in is cancelled: its call must not be made behind the gate."""
    spend(capped, "ann", 1.0)
    task = asyncio.ensure_future(asyncio.sleep(60))
    with pytest.raises(PaygentLimitExceeded):
        await capped.awrap(task, user_id="ann", model="gpt-4o")
    await asyncio.wait((task,))
    assert task.cancelled()


async def test_awrap_meters_an_async_stream(capped):
    """An async stream is settled when it ends."""
    import openai

    client = openai.AsyncOpenAI(api_key="x", http_client=stub_http_client("openai", is_async=True))
    stream = await capped.awrap(
        client.chat.completions.create(
            model="gpt-4o", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        ),
        user_id="ann",
        model="gpt-4o",
    )
    async for _ in stream:
        pass
    [event] = events(capped)
    assert event.output_tokens > 0
    assert not event.estimated


def test_wrap_around_an_async_call_says_what_to_use(capped, log):
    """The coroutine is handed on unmetered, and one warning names ``awrap``."""

    async def answering():
        """What an async client returns."""

    for _ in range(2):
        capped.wrap(answering, user_id="ann").close()
    assert len([r for r in log.records if "awrap" in r.message]) == 1


def test_wrap_without_a_user_passes_with_one_warning(pg, log):
    """An empty user id is nobody: the call passes unmetered, and that is said once."""
    for nobody in ("", None):
        assert pg.wrap(lambda: "result", user_id=nobody) == "result"
    assert len([r for r in log.records if "passes unmetered" in r.message]) == 1
    assert events(pg) == []


def test_a_result_without_a_model_is_warned_of_as_such(capped, log):
    """Where neither the call nor its result names a model, the warning asks for one, not for its rate."""
    capped.wrap(lambda: "result", user_id="ann")
    assert [r.message for r in log.records if "price" in r.message] == [
        "neither a call nor its result names a model: it has no price; wrap() takes a model"
    ]


def test_a_custom_registry_reads_results_of_another_provider():
    """``init(registry=)`` decides which providers ``wrap`` knows."""
    from paygent import ProviderRegistry
    from paygent.core.usage import Usage

    class Mistral:
        name = "mistral"

        def claims(self, result):
            return "mistral" in result

        def receive(self, call, result):
            call.finish(Usage(*result["mistral"]), "mistral-large")

    registry = ProviderRegistry()
    registry.register(Mistral())
    pg = Paygent.init(ledger="memory://", registry=registry)
    pg.wrap(lambda: {"mistral": (10, 5)}, user_id="ann", model="mistral-large", provider="mistral")
    [event] = events(pg)
    assert (event.input_tokens, event.output_tokens) == (10, 5)
