"""The real LangGraph: agents with tools, graphs with retries, subtasks in parallel."""

from __future__ import annotations

import asyncio
import contextlib
import operator
from typing import Annotated, TypedDict

import pytest
from agent_apps import chat_openai, get_weather
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import RetryPolicy, Send

from paygent import PaygentLimitExceeded, PlanConfig, paygent_context
from paygent.integrations import LangChainCallback
from paygent.testing.llm_server import LLMServer

ASK = {"messages": [("user", "Please use get_weather")]}


@pytest.fixture(scope="module")
def llm_server():
    with LLMServer(reply_tokens=20) as server:
        yield server


@pytest.fixture
def llm(llm_server):
    llm_server.reset()
    return llm_server


@pytest.fixture(params=["context", "callback"])
def way(request, pg):
    """Return the config to pass; the user comes from the context or from the callback."""
    within = paygent_context("ann") if request.param == "context" else contextlib.nullcontext()
    with within:
        yield {"callbacks": [] if request.param == "context" else [LangChainCallback(pg, "ann")]}


@pytest.fixture
def spent(pg):
    pg.configure_plan("spent", PlanConfig(max_spend_per_period=0.0))
    pg.assign_plan("ann", "spent")


def agent(model, tools, **more):
    """Build the loop of model and tools that every agent is."""
    bound = model.bind_tools(tools)

    def think(state, config):
        return {"messages": [bound.invoke(state["messages"], config)]}

    graph = StateGraph(MessagesState)
    graph.add_node("think", think, retry_policy=more.get("retry_policy"))
    graph.add_node("tools", ToolNode(tools, **more.get("tool_options", {})))
    graph.add_edge(START, "think")
    graph.add_conditional_edges("think", tools_condition, {"tools": "tools", END: END})
    graph.add_edge("tools", "think")
    return graph.compile()


def billed(events, llm, calls):
    made = llm.generated.values()
    assert [event.user_id for event in events] == ["ann"] * calls
    assert sum(event.input_tokens for event in events) == sum(one.input_tokens for one in made)
    assert sum(event.output_tokens for event in events) == sum(one.output_tokens for one in made)


def test_each_turn_of_an_agent_is_metered_once(way, llm, posted):
    """The model asks for a tool, hears its answer and replies: two calls, two events."""
    result = agent(chat_openai(llm), [get_weather]).invoke(ASK, way)
    assert [message.type for message in result["messages"]] == ["human", "ai", "tool", "ai"]
    billed(posted, llm, 2)


@pytest.mark.parametrize("mode", ["messages", "updates", "values"])
def test_a_streamed_agent_is_metered_once(way, llm, posted, mode):
    """Whatever LangGraph streams, token by token or state by state."""
    assert list(agent(chat_openai(llm), [get_weather]).stream(ASK, way, stream_mode=mode))
    billed(posted, llm, 2)


def test_an_async_agent_is_metered_once(way, llm, posted):
    """``ainvoke`` runs plain nodes in threads of its own: they are the user's."""
    asyncio.run(agent(chat_openai(llm), [get_weather]).ainvoke(ASK, way))
    billed(posted, llm, 2)


class Words(TypedDict):
    words: Annotated[list[str], operator.add]


def test_branches_in_parallel_are_metered_once_each(way, llm, posted):
    """``Send`` runs nodes at once, in a pool: each call is the user's."""
    model = chat_openai(llm)

    def say(state, config):
        return {"words": [model.invoke(state["word"], config).content]}

    graph = StateGraph(Words)
    graph.add_node("say", say)
    graph.add_conditional_edges(START, lambda _: [Send("say", {"word": word}) for word in "abcd"], ["say"])
    graph.add_edge("say", END)
    assert len(graph.compile().invoke({"words": []}, way)["words"]) == 4
    billed(posted, llm, 4)


# --- a spent plan -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("spent")
@pytest.mark.parametrize("is_async", [False, True])
def test_a_refusal_comes_out_of_the_graph(way, llm, is_async):
    """The graph ends with the refusal as it is; nothing was sent."""
    graph = agent(chat_openai(llm), [get_weather])
    with pytest.raises(PaygentLimitExceeded) as refused:
        asyncio.run(graph.ainvoke(ASK, way)) if is_async else graph.invoke(ASK, way)
    assert refused.value.guard_result.gate_reason == "total_spend"
    assert len(llm.requests) == 0


@pytest.mark.usefixtures("spent")
def test_a_refusal_passes_through_a_retry_policy(way, llm):
    """A node that is retried is refused each time, unsent, and the refusal comes out."""
    policy = RetryPolicy(max_attempts=2, initial_interval=0.01, jitter=False)
    graph = agent(chat_openai(llm), [get_weather], retry_policy=policy)
    with pytest.raises(PaygentLimitExceeded):
        graph.invoke(ASK, way)
    assert len(llm.requests) == 0


@pytest.fixture
def ask_model(llm):
    """Return a tool that asks a model itself."""

    @tool
    def ask_model(question: str) -> str:
        """Ask another model."""
        return chat_openai(llm).invoke(question).content

    return ask_model


def calls_tool(name):
    message = AIMessage("", tool_calls=[{"name": name, "args": {"question": "Hi"}, "id": "1"}])
    return {"messages": [HumanMessage("Hi"), message]}


def tool_graph(*tools, **options):
    graph = StateGraph(MessagesState)
    graph.add_node("tools", ToolNode(list(tools), **options))
    graph.add_edge(START, "tools")
    return graph.compile()


def test_a_call_within_a_tool_is_metered_once(way, llm, posted, ask_model):
    """LangGraph hands context and callbacks on to what a tool calls."""
    tool_graph(ask_model).invoke(calls_tool("ask_model"), way)
    billed(posted, llm, 1)


@pytest.mark.usefixtures("spent")
def test_a_refusal_within_a_tool_passes_the_tool_node(way, llm, ask_model):
    """The node makes messages of wrong arguments, not of a refusal."""
    with pytest.raises(PaygentLimitExceeded):
        tool_graph(ask_model).invoke(calls_tool("ask_model"), way)


@pytest.mark.usefixtures("spent")
def test_a_node_that_handles_all_errors_ends_at_the_next_call(way, llm, ask_model):
    """``handle_tool_errors=True`` makes a message of every error; the agent's next call is refused."""
    messages = calls_tool("ask_model")
    node = tool_graph(ask_model, handle_tool_errors=True)
    assert "Limit reached" in node.invoke(messages, way)["messages"][-1].content
    with pytest.raises(PaygentLimitExceeded):
        agent(chat_openai(llm), [ask_model]).invoke(messages, way)
    assert len(llm.requests) == 0
