from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import types
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import LLMResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_models import BatchingLLM, ChatOther, ChatStreaming, chat_through_sdk

import paygent.integrations
from paygent import ModelCostRate, PaygentLimitExceeded, PlanConfig, paygent_context
from paygent.context import Payer, as_payer, paygent_exempt
from paygent.integrations import LangChainCallback, langchain

COST_USD = 0.04  # of 1 000 tokens in and 1 000 out


@pytest.fixture
def callback(pg):
    return LangChainCallback(pg, user_id="ann", session_id="s1", metadata={"feature": "chat"})


@pytest.fixture
def config(callback):
    return {"callbacks": [callback]}


def spend_all(pg, user_id="ann"):
    rate = ModelCostRate(input=0.01, output=0.03)
    plan = PlanConfig(max_spend_per_period=1.0, default_cost_rate=rate, cost_rates={"gpt-4o": rate})
    pg.configure_plan("default", plan)
    pg.record_event(user_id, cost=1.0)


def test_it_is_a_handler_of_langchains(callback):
    """LangChain takes the callback as one of its own handlers, whose errors it passes on."""
    assert isinstance(callback, BaseCallbackHandler)
    assert callback.raise_error is True


def test_invoke_posts_the_reported_usage(ledger_events, config):
    """One invoke is one event with all that the message reports: tokens, details, model."""
    ChatOther().invoke("Hi", config)
    (event,) = ledger_events("ann")
    assert (event.input_tokens, event.output_tokens, event.estimated) == (1000, 1000, 0)
    assert (event.request_model, event.response_model) == ("other-1", "other-1-2026-01-01")
    assert (event.cache_read_input_tokens, event.cache_write_input_tokens) == (400, 100)
    assert event.reasoning_output_tokens == 300


def test_the_call_is_the_users(pg, posted, config):
    """User, session and metadata are those that the callback was made with."""
    ChatOther().invoke("Hi", config)
    (event,) = posted
    assert (event.user_id, event.session_id, event.metadata) == ("ann", "s1", {"feature": "chat"})
    assert pg.get_usage("ann").period_cost > 0


def test_a_chain_is_metered(pg, posted, config):
    """A callback given to a chain sees the model inside it."""
    chain = ChatPromptTemplate.from_messages([("user", "Say {word}")]) | ChatOther()
    chain.invoke({"word": "hello"}, config)
    assert len(posted) == 1


def test_tool_calls_are_named(pg, posted, config):
    """The event lists the tools that the model asked for."""
    tools = [{"name": "search", "args": {"q": "x"}, "id": "1", "type": "tool_call"}]
    ChatOther(tools=tools).invoke("Hi", config)
    assert posted[0].tool_calls == ["search"]


@pytest.mark.parametrize(
    "model",
    [FakeListChatModel(responses=["Hello there"]), ChatOther(usage=None)],
    ids=["fake", "no usage"],
)
def test_missing_usage_is_estimated_never_zero(pg, posted, config, model):
    """A model that reports nothing is charged by its text, and the event says so."""
    model.invoke("x" * 400, config)
    (event,) = posted
    assert event.estimated is True
    assert event.input_tokens >= 50
    assert event.output_tokens == 3
    assert event.cost_total > 0


async def test_ainvoke_posts_once(pg, posted, config):
    """An asynchronous call is one event."""
    await ChatOther().ainvoke("Hi", config)
    assert [event.output_tokens for event in posted] == [1000]


def test_a_stream_posts_once_with_its_usage(pg, posted, config):
    """A stream read to its end is one event, with the usage of its last chunk."""
    assert (
        "".join(chunk.content for chunk in ChatStreaming().stream("Hi", config)) == "Hello there and welcome"
    )
    assert [(event.output_tokens, event.estimated) for event in posted] == [(1000, False)]


def test_a_stream_without_usage_is_estimated(pg, posted, config):
    """LangChain's own fake streams words and no usage: one estimated event."""
    list(GenericFakeChatModel(messages=iter([AIMessage("Hello there you")])).stream("Hi", config))
    assert [event.estimated for event in posted] == [True]


async def test_an_async_stream_posts_once(pg, posted, config):
    """An asynchronous stream is one event."""
    assert [chunk async for chunk in ChatStreaming().astream("Hi", config)]
    assert [event.output_tokens for event in posted] == [1000]


def test_a_stream_left_early_posts_what_was_seen(pg, posted, held, config):
    """Breaking out of a stream posts an estimate of the words read, and frees the hold."""
    stream = ChatStreaming().stream("Hi", config)
    next(stream)
    next(stream)
    stream.close()
    (event,) = posted
    assert event.estimated is True
    assert event.output_tokens in (2, 3)  # LangChain may hold the last word read back
    assert held("ann") == 0


def test_a_stream_cut_by_the_provider_posts_what_was_seen(pg, posted, held, config):
    """A stream that the provider cuts is charged by what came of it."""
    with pytest.raises(ConnectionError):
        list(ChatStreaming(breaks_after=2).stream("Hi", config))
    assert [event.estimated for event in posted] == [True]
    assert held("ann") == 0


def test_a_batch_posts_each_call(pg, posted, config):
    """A batch of three is three events, each with its own usage."""
    ChatOther().batch(["a", "b", "c"], config)
    assert [event.output_tokens for event in posted] == [1000, 1000, 1000]


def test_a_batch_of_a_plain_llm_counts_its_usage_once(pg, posted, held, config):
    """LangChain gives the usage of a batch to its first prompt: the sum is charged once."""
    BatchingLLM().batch(["a", "b"], config)
    assert sum(event.output_tokens for event in posted) == 1000
    assert held("ann") == 0


def test_an_error_costs_nothing(pg, posted, held, config):
    """A provider's error passes through, posts nothing and frees the hold."""
    with pytest.raises(ConnectionError):
        ChatOther(fails=True).invoke("Hi", config)
    assert posted == []
    assert held("ann") == 0


def test_an_answer_from_langchains_cache_is_free(pg, posted, held, config):
    """What LangChain answers from its cache is no call of a provider."""
    model = ChatOther(cache=InMemoryCache())
    model.invoke("Hi", config)
    model.invoke("Hi", config)
    assert len(posted) == 1
    assert held("ann") == 0


def test_a_spent_plan_stops_the_chain_unsent(pg, posted, config):
    """The refusal comes out of ``chain.invoke`` as it is, and the model was not asked."""
    spend_all(pg)
    model = ChatOther()
    chain = ChatPromptTemplate.from_messages([("user", "{word}")]) | model
    with pytest.raises(PaygentLimitExceeded) as refused:
        chain.invoke({"word": "Hi"}, config)
    assert refused.value.guard_result.gate_reason == "total_spend"
    assert model.answered == []


async def test_a_spent_plan_stops_ainvoke_unsent(pg, config):
    """The asynchronous way is refused like the other."""
    spend_all(pg)
    model = ChatOther()
    with pytest.raises(PaygentLimitExceeded):
        await model.ainvoke("Hi", config)
    assert model.answered == []


def test_one_spent_user_does_not_stop_another(pg, posted):
    """Each callback asks its own user's plan."""
    spend_all(pg, "ann")
    ChatOther().invoke("Hi", {"callbacks": [LangChainCallback(pg, "ben")]})
    assert [event.user_id for event in posted if event.source == "auto"] == ["ben"]


def test_a_call_within_a_context_is_counted_once_by_the_sdk(pg, posted, config):
    """With the SDK patched and a context set, the seam meters and the callback stands aside."""
    with paygent_context("ann"):
        chat_through_sdk().invoke("Hi", config)
    (event,) = posted
    assert event.cost_total == pytest.approx(COST_USD)
    assert event.metadata in ({}, None)


def test_without_a_context_the_callback_counts_once(pg, posted, config):
    """With the SDK patched and no context, the seam sees nobody and the callback meters."""
    chat_through_sdk().invoke("Hi", config)
    (event,) = posted
    assert event.user_id == "ann"
    assert event.cost_total == pytest.approx(COST_USD)
    assert event.metadata == {"feature": "chat"}


def test_without_the_patches_the_callback_counts_in_a_context_too(pg, posted, config):
    """With ``auto_instrument`` off nobody else meters: the callback does."""
    pg.uninstrument()
    with paygent_context("ann"):
        chat_through_sdk().invoke("Hi", config)
    assert [event.metadata for event in posted] == [{"feature": "chat"}]


def test_other_providers_are_counted_in_a_context_too(pg, posted, config):
    """The seam does not see other providers: the callback meters them whatever the context."""
    with paygent_context("ann"):
        ChatOther().invoke("Hi", config)
    assert len(posted) == 1


def test_where_closed_gates_are_only_reported_the_call_runs(pg, posted, config):
    """A context that only reports closed gates says so for the callback's calls too."""
    spend_all(pg)
    payer = Payer("ann")
    payer.reports_only = True
    with as_payer(payer):
        assert ChatOther().invoke("Hi", config).content == "Hello there"
    assert [event.source for event in posted] == ["manual", "auto"]


def test_an_exempt_block_is_left_alone(pg, posted, config):
    """Within ``paygent_exempt`` nothing is metered."""
    with paygent_exempt():
        ChatOther().invoke("Hi", config)
    assert posted == []


def test_within_wrap_the_outer_bracket_counts(pg, posted, config):
    """A chain inside ``wrap`` is counted once, by ``wrap``."""
    pg.wrap(lambda: ChatOther().invoke("Hi", config), user_id="ann", model="gpt-4o")
    assert len(posted) == 1


def test_a_subclass_of_an_sdk_backed_model_is_the_sdks(pg, posted, config, monkeypatch):
    """Whatever a model calls itself: built on one of the SDK-backed bases, the seam counts it."""

    class ChatOnSDK(ChatOther):
        """Stand for a subclass of ``BaseChatOpenAI`` with another provider's name."""

    module = types.SimpleNamespace(BaseChatOpenAI=ChatOnSDK)
    monkeypatch.setitem(sys.modules, "langchain_openai.chat_models.base", module)
    with paygent_context("ann"):
        ChatOnSDK().invoke("Hi", config)
    assert posted == []


def test_a_stream_nobody_closes_is_settled_when_the_callback_goes(pg, posted, held):
    """A run that never ended leaves no hold behind once its callback is gone."""
    callback = LangChainCallback(pg, "ann")
    callback.on_llm_start({}, ["Hi"], run_id=uuid4(), invocation_params={"model": "m"})
    assert held("ann") > 0
    del callback
    gc.collect()
    pg._meter.settle_dropped()
    assert held("ann") == 0
    assert [event.estimated for event in posted] == [True]


class ChatSilent(ChatOther):
    """A provider that does not answer; ``asked`` is set once it is asked."""

    asked: Any

    async def _agenerate(self, *args, **kwargs):
        self.asked.set()
        await asyncio.get_running_loop().create_future()


async def test_a_cancelled_ainvoke_is_settled_by_a_later_call(pg, posted, held, config, monkeypatch):
    """LangChain tells nobody of it: after its time what it held is posted as an estimate, once."""
    asked = asyncio.Event()
    asking = asyncio.ensure_future(ChatSilent(asked=asked).ainvoke("Hi", config))
    await asked.wait()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    ChatOther().invoke("Hi", config)
    assert held("ann") > 0
    monkeypatch.setattr(langchain, "FORGOTTEN_S", -1.0)
    ChatOther().invoke("Hi", config)
    pg.flush()
    assert held("ann") == 0
    assert sorted(event.estimated for event in posted) == [0, 0, 1]


def test_concurrent_calls_keep_apart(pg, posted, config):
    """Twenty calls at once on one callback are twenty events."""

    async def many():
        await asyncio.gather(*(ChatOther().ainvoke("Hi", config) for _ in range(20)))

    asyncio.run(many())
    assert len(posted) == 20


def test_a_result_that_cannot_be_read_is_estimated(pg, posted, held, callback):
    """A fault of ours while reading never reaches the chain, and the call is not lost."""

    class Odd:
        @property
        def generations(self):
            raise RuntimeError("odd")

    run_id = uuid4()
    callback.on_llm_start({}, ["Hi"], run_id=run_id, invocation_params={"model": "m"})
    callback.on_llm_end(Odd(), run_id=run_id)
    assert [event.estimated for event in posted] == [True]
    assert held("ann") == 0


def test_after_shutdown_calls_pass(pg, config):
    """A closed Paygent lets the chain run."""
    pg.shutdown()
    assert ChatOther().invoke("Hi", config).content == "Hello there"


def test_a_user_id_that_cannot_be_stored_is_refused_at_once(pg):
    """A wrong user is the developer's fault, said where the callback is made."""
    with pytest.raises(ValueError, match="512"):
        LangChainCallback(pg, "x" * 513)


@pytest.mark.parametrize("nobody", ["", None], ids=["empty", "none"])
def test_a_callback_belongs_to_somebody(pg, nobody):
    """Without a user no call would be counted: said where the callback is made."""
    with pytest.raises(ValueError, match="user_id must not be empty"):
        LangChainCallback(pg, user_id=nobody)


def unmetered(caplog):
    return [record.message for record in caplog.records if "passes unmetered" in record.message]


def test_a_call_that_the_callback_counts_is_not_called_unmetered(pg, posted, config, caplog):
    """Without a context the patched SDK sees nobody, and says nothing: the callback counts the call."""
    chat_through_sdk().invoke("Hi", config)
    assert (len(posted), unmetered(caplog)) == (1, [])


async def test_nor_is_one_of_an_async_chain(pg, posted, config, caplog):
    """The asynchronous way is as quiet; LangChain calls back in a thread of its own there."""
    await chat_through_sdk().ainvoke("Hi", config)
    assert (len(posted), unmetered(caplog)) == (1, [])


def through_its_end(pg, callback, run_id):
    callback.on_llm_end(LLMResult(generations=[]), run_id=run_id)


def through_an_error(pg, callback, run_id):
    callback.on_llm_error(ConnectionError("cut"), run_id=run_id)


@pytest.mark.parametrize("end", [through_its_end, through_an_error])
def test_after_it_a_call_of_nobody_is_warned_of(pg, callback, caplog, end):
    """Only while the callback's call is under way is the warning held back."""
    run_id = uuid4()
    callback.on_llm_start({}, ["Hi"], run_id=run_id, invocation_params={"model": "m"})
    chat_through_sdk().invoke("Hi")
    assert unmetered(caplog) == []
    end(pg, callback, run_id)
    chat_through_sdk().invoke("Hi")
    assert len(unmetered(caplog)) == 1


def test_a_callback_that_is_gone_holds_no_warning_back(pg, caplog):
    """A run that never ended is over with its callback."""
    callback = LangChainCallback(pg, "ann")
    callback.on_llm_start({}, ["Hi"], run_id=uuid4(), invocation_params={"model": "m"})
    del callback
    gc.collect()
    chat_through_sdk().invoke("Hi")
    assert len(unmetered(caplog)) == 1


def test_a_refused_run_holds_no_warning_back(pg, config, caplog):
    """A call that the callback refuses is under way no more."""
    spend_all(pg)
    with pytest.raises(PaygentLimitExceeded):
        ChatOther().invoke("Hi", config)
    chat_through_sdk().invoke("Hi")
    assert len(unmetered(caplog)) == 1


def test_importing_the_package_loads_no_framework():
    """``import paygent.integrations`` loads neither LangChain nor CrewAI."""
    code = "import sys, paygent.integrations; assert not {'langchain_core', 'crewai'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_langchain_says_what_to_install():
    """Without langchain-core the import names the extra."""
    code = (
        "import sys; sys.modules['langchain_core'] = None\n"
        "sys.modules['langchain_core.callbacks'] = None\n"
        "try:\n    from paygent.integrations import LangChainCallback\n"
        "except ImportError as error:\n    assert 'paygent[langchain]' in str(error), error\n"
        "else:\n    raise SystemExit('imported')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_is_an_attribute_error():
    """The package has the two callbacks and nothing else."""
    assert {"CrewAICallback", "LangChainCallback"} <= set(dir(paygent.integrations))
    with pytest.raises(AttributeError, match="Nobody"):
        _ = paygent.integrations.Nobody
