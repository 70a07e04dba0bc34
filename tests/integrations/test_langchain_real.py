"""The real langchain-openai and langchain-anthropic on the loopback LLM server: each call metered once."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from agent_apps import CHATS, Person, chat_anthropic, chat_openai, get_weather, plain_openai
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda

from paygent import PaygentLimitExceeded, PlanConfig, paygent_context
from paygent.integrations import LangChainCallback
from paygent.testing.llm_server import LLMServer

# Who meters: the patched SDK in a context, or the callback (without a context, or without the patches).
WAYS = ["context", "context and callback", "callback", "callback without patches", "both without patches"]


@pytest.fixture(scope="module")
def llm_server():
    with LLMServer(reply_tokens=20) as server:
        yield server


@pytest.fixture
def llm(llm_server):
    llm_server.reset()
    return llm_server


@pytest.fixture(params=WAYS)
def way(request, pg):
    """Return ``(context, config)``: what to call within, and what to pass along."""
    if "without" in request.param:
        pg.uninstrument()
    within = paygent_context("ann") if request.param.startswith(("context", "both")) else None
    callbacks = [] if request.param == "context" else [LangChainCallback(pg, "ann")]
    with within or contextlib.nullcontext():
        yield {"callbacks": callbacks}


@pytest.fixture
def billed(pg, llm):
    """Return a check that the events are what the server billed, once each, for ann, and nothing is held."""
    events = []
    pg.on_usage(events.append)

    def billed(calls, *, exact=True):
        assert len(events) == calls
        assert {event.user_id for event in events} == {"ann"}
        made = llm.generated.values()
        assert sum(one.requests for one in made) == calls
        if exact:
            assert sum(event.input_tokens for event in events) == sum(one.input_tokens for one in made)
            assert sum(event.output_tokens for event in events) == sum(one.output_tokens for one in made)
        assert all(event.output_tokens > 0 for event in events)
        assert pg.get_usage("ann").reserved_cost == 0

    return billed


@pytest.mark.parametrize("make", CHATS.values(), ids=CHATS.keys())
def test_every_way_of_asking_is_metered_once(way, llm, billed, make):
    """Invoke, stream, batch and their async twins: one event per call, with the usage that was billed."""

    async def later(model):
        await model.ainvoke("Hi", way)
        assert [chunk async for chunk in model.astream("Hi", way)]
        await model.abatch(["a", "b"], way)

    model = make(llm)
    model.invoke("Hi", way)
    assert list(model.stream("Hi", way))
    model.batch(["a", "b"], way)
    asyncio.run(later(make(llm)))
    billed(8)


@pytest.mark.parametrize("make", CHATS.values(), ids=CHATS.keys())
def test_structured_output_and_tools_are_metered_once(way, llm, billed, make):
    """``with_structured_output`` and ``bind_tools`` ask in other ways, and are counted like the rest."""
    person = make(llm).with_structured_output(Person).invoke("Who?", way)
    assert isinstance(person, Person)
    asked = make(llm).bind_tools([get_weather]).invoke("Please use get_weather", way)
    assert [call["name"] for call in asked.tool_calls] == ["get_weather"]
    billed(2)


def test_a_plain_llm_is_metered_once(way, llm, billed):
    """The completion API: invoke, and a stream."""
    model = plain_openai(llm)
    model.invoke("Hi", way)
    billed(1)
    assert list(model.stream("Hi", way))
    billed(2, exact=False)  # LangChain asks for no usage here: an estimate


def test_a_stream_left_early_is_never_zero(way, llm, pg):
    """Breaking out of a stream posts at least what was seen, once, and frees the hold."""
    events = []
    pg.on_usage(events.append)
    stream = chat_openai(llm).stream("Hi", way)
    next(stream)
    next(stream)
    stream.close()
    del stream
    pg._meter.settle_dropped()
    (event,) = events
    assert event.output_tokens > 0
    assert event.cost_total > 0
    assert pg.get_usage("ann").reserved_cost == 0


def test_a_stream_without_usage_is_estimated_never_zero(way, llm, pg):
    """A compatible server that is not asked for usage: the text is counted."""
    events = []
    pg.on_usage(events.append)
    assert list(chat_openai(llm, stream_usage=False).stream("Hi", way))
    (event,) = events
    assert event.output_tokens >= 10


def test_the_printed_snippet_works_from_the_first_call(pg, llm, posted):
    """``chain.invoke({...}, config={"callbacks": [cb]})``, without a context: metered, gated, right user."""
    chain = ChatPromptTemplate.from_messages([("user", "{word}")]) | chat_openai(llm) | StrOutputParser()
    cb = LangChainCallback(pg, user_id="user_123")
    assert chain.invoke({"word": "Hi"}, config={"callbacks": [cb]})
    assert [event.user_id for event in posted] == ["user_123"]


def test_users_do_not_mix(pg, llm, posted):
    """Twenty chains at once, each with its own callback: each call is its own user's."""
    model = chat_openai(llm)

    async def many():
        callbacks = [LangChainCallback(pg, f"user-{number}") for number in range(20)]
        await asyncio.gather(*(model.ainvoke("Hi", {"callbacks": [callback]}) for callback in callbacks))

    asyncio.run(many())
    assert sorted(event.user_id for event in posted) == sorted(f"user-{number}" for number in range(20))


# --- a spent plan -------------------------------------------------------------------------------------------


@pytest.fixture
def spent(pg):
    """Put ann on a plan that is spent."""
    pg.configure_plan("spent", PlanConfig(max_spend_per_period=0.0))
    pg.assign_plan("ann", "spent")


@pytest.fixture(params=["sync", "async"])
def invoke(request):
    """Return how to invoke: both ways."""
    if request.param == "sync":
        return lambda runnable, *args: runnable.invoke(*args)
    return lambda runnable, *args: asyncio.run(runnable.ainvoke(*args))


@pytest.mark.usefixtures("spent")
@pytest.mark.parametrize("make", [chat_openai, chat_anthropic])
def test_a_spent_user_is_refused_unsent(way, llm, make, invoke):
    """The refusal comes out as it is, whoever meters."""
    with pytest.raises(PaygentLimitExceeded) as refused:
        invoke(make(llm), "Hi", way)
    assert refused.value.guard_result.gate_reason == "total_spend"
    assert len(llm.requests) == 0


@pytest.mark.usefixtures("spent")
def test_a_refusal_passes_through_retries(way, llm, invoke):
    """``with_retry`` asks again and is refused again, unsent; the refusal itself comes out."""
    model = chat_openai(llm).with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
    with pytest.raises(PaygentLimitExceeded):
        invoke(model, "Hi", way)
    assert len(llm.requests) == 0


@pytest.mark.usefixtures("spent")
def test_a_refusal_passes_through_fallbacks(way, llm, invoke):
    """A fallback is another call of the same user: refused too, and the refusal comes out."""
    model = chat_openai(llm).with_fallbacks([chat_anthropic(llm)])
    with pytest.raises(PaygentLimitExceeded):
        invoke(model, "Hi", way)
    assert len(llm.requests) == 0


@pytest.mark.usefixtures("spent")
def test_a_fallback_without_a_model_can_be_kept_from_refusals(way, llm, invoke):
    """``exceptions_to_handle`` keeps a canned answer for faults, and lets the refusal through."""
    canned = RunnableLambda(lambda _: "sorry")
    model = chat_openai(llm).with_fallbacks([canned], exceptions_to_handle=(ConnectionError,))
    with pytest.raises(PaygentLimitExceeded):
        invoke(model, "Hi", way)


@pytest.mark.usefixtures("spent")
def test_a_refusal_stops_a_batch(way, llm):
    """``batch`` raises it, ``return_exceptions`` hands it over."""
    model = chat_openai(llm)
    with pytest.raises(PaygentLimitExceeded):
        model.batch(["a", "b"], way)
    kinds = {type(answer) for answer in model.batch(["a", "b"], way, return_exceptions=True)}
    assert kinds == {PaygentLimitExceeded}


@pytest.mark.usefixtures("spent")
def test_a_refused_stream_raises_at_its_first_step(way, llm):
    """A stream of a spent user raises before any chunk."""
    with pytest.raises(PaygentLimitExceeded):
        next(chat_openai(llm).stream("Hi", way))
