"""Readers of streams, fed single events: what each says of the model, the output, the tools and the usage."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from paygent.core.usage import Usage
from paygent.instrumentation._fields import loose
from paygent.instrumentation.readers import (
    AutoReader,
    ChatReader,
    CompletionReader,
    EventReader,
    MessageReader,
    Reader,
    ResponseReader,
    RunReader,
)
from paygent.instrumentation.usage import anthropic_usage, openai_tools, openai_usage

USED = {"input_tokens": 8, "output_tokens": 2}
CHAT_USED = {"prompt_tokens": 8, "completion_tokens": 2}


def see(reader: Reader, *events: dict[str, Any]) -> list[bool]:
    """Feed *events*; returns on which of them usage was final."""
    return [reader.see(loose(event)) for event in events]


def delta(**fields: Any) -> dict[str, Any]:
    """Return a chunk of a chat with one choice."""
    return {
        "model": "m",
        "choices": [{"delta": {"content": None, "tool_calls": None, **fields}}],
        "usage": None,
    }


@pytest.mark.parametrize(
    "fields,output_bytes,tools",
    [
        ({"content": "four"}, 4, []),
        ({"content": "né"}, 3, []),
        ({"refusal": "no"}, 2, []),
        ({"reasoning_content": "né"}, 3, []),
        ({"reasoning": "hmm"}, 3, []),
        ({"tool_calls": [{"function": {"name": "look", "arguments": "{}"}}]}, 2, ["look"]),
        ({"tool_calls": [{"function": {"name": None, "arguments": "né"}}]}, 3, []),
        ({"tool_calls": [{"custom": {"name": "run", "input": "abc"}}]}, 3, ["run"]),
        ({"content": "a", "tool_calls": [{"function": {"name": "look", "arguments": "{}"}}]}, 3, ["look"]),
        ({"function_call": {"name": "old", "arguments": "{}"}}, 2, ["old"]),
    ],
)
def test_what_a_chat_chunk_carries_is_counted(fields: Any, output_bytes: int, tools: list[str]) -> None:
    """Text, refusals, reasoning and the arguments of tools count by their bytes, tools by their names."""
    reader = ChatReader()
    assert see(reader, delta(**fields)) == [False]
    assert (reader.output_bytes, reader.tools, reader.model) == (output_bytes, tools, "m")


def test_a_chat_is_final_on_the_chunk_without_choices() -> None:
    """Servers that report with every chunk go on; the one that carries nothing else is the last."""
    reader = ChatReader()
    first = {**delta(content="a"), "usage": CHAT_USED}
    last = {"model": "m", "choices": [], "usage": {**CHAT_USED, "completion_tokens": 5}}
    assert see(reader, first, last) == [False, True]
    assert reader.usage == Usage(8, 5)


def test_a_completion_is_read_like_a_chat() -> None:
    """Text of all choices counts, the model stays the first that was named, usage comes last."""
    reader = CompletionReader()
    events = [
        {"model": "m", "choices": [{"text": "four"}, {"text": "né"}]},
        {"choices": [{"text": "a"}], "usage": {**CHAT_USED, "completion_tokens": 1}},
        {"model": "n", "choices": [], "usage": CHAT_USED},
    ]
    assert see(reader, *events) == [False, False, True]
    assert (reader.output_bytes, reader.model, reader.usage) == (8, "m", Usage(8, 2))


def test_an_old_text_completion_counts() -> None:
    """Anthropic's old completions carry their text in a field of their own."""
    reader = CompletionReader()
    see(reader, {"model": "claude-2", "completion": "four"})
    assert (reader.output_bytes, reader.model) == (4, "claude-2")


@pytest.mark.parametrize(
    "event,output_bytes",
    [
        ({"type": "response.output_text.delta", "delta": "né"}, 3),
        ({"type": "response.function_call_arguments.delta", "delta": "{}"}, 2),
        ({"type": "response.reasoning_summary_text.delta", "delta": "hmm"}, 3),
        ({"type": "response.audio.delta", "delta": "AAAA"}, 0),
        ({"type": "response.audio.transcript.delta", "delta": "hey"}, 3),
        ({"type": "error", "message": "x"}, 0),
    ],
)
def test_what_an_event_of_a_response_carries_is_counted(event: Any, output_bytes: int) -> None:
    """All deltas count by their bytes, but sound, which comes encoded."""
    reader = ResponseReader()
    assert see(reader, event) == [False]
    assert reader.output_bytes == output_bytes


@pytest.mark.parametrize("kind", ["completed", "incomplete", "failed", "cancelled"])
def test_a_response_is_final_when_it_ends(kind: str) -> None:
    """Model and id are known from its start, usage from its end, however it ends."""
    reader = ResponseReader()
    begun = {"type": "response.created", "response": {"id": "r", "model": "m"}}
    item = {"type": "response.output_item.done", "item": {"type": "function_call", "name": "look"}}
    ended = {"type": f"response.{kind}", "response": {"id": "r", "usage": USED, "output": []}}
    assert see(reader, begun, item, ended) == [False, False, True]
    assert (reader.model, reader.job, reader.usage, reader.failed) == ("m", "r", Usage(8, 2), False)
    assert reader.tools == ["look"]


@pytest.mark.parametrize("kind,failed", [("failed", True), ("cancelled", False), ("incomplete", False)])
def test_only_a_failed_response_without_usage_has_failed(kind: str, failed: bool) -> None:
    """One that was cancelled was worked on, so that it may be charged."""
    reader = ResponseReader()
    assert see(reader, {"type": f"response.{kind}", "response": {"id": "r", "model": "m"}}) == [True]
    assert reader.failed is failed


@pytest.mark.parametrize(
    "event,output_bytes,tools",
    [
        ({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "né"}}, 3, []),
        ({"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": "{}"}}, 2, []),
        ({"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "hmm"}}, 3, []),
        ({"type": "content_block_delta", "delta": {"type": "signature_delta", "signature": "AAAA"}}, 0, []),
        ({"type": "content_block_start", "content_block": {"type": "tool_use", "name": "look"}}, 0, ["look"]),
        ({"type": "content_block_start", "content_block": {"type": "text", "text": ""}}, 0, []),
        ({"type": "ping"}, 0, []),
    ],
)
def test_what_an_event_of_a_message_carries_is_counted(event: Any, output_bytes: int, tools: Any) -> None:
    """Text, thinking and the input of tools count by their bytes, signatures by nothing."""
    reader = MessageReader()
    assert see(reader, event) == [False]
    assert (reader.output_bytes, reader.tools) == (output_bytes, tools)


def test_the_usage_of_a_message_is_overwritten() -> None:
    """What is reported again replaces what was, what is null or left out stays, and the stop is final."""
    reader = MessageReader()
    start = {"model": "m", "usage": {"input_tokens": 8, "output_tokens": 1, "cache_read_input_tokens": 4}}
    events = [
        {"type": "message_start", "message": start},
        {"type": "message_delta", "usage": {"input_tokens": None, "output_tokens": 5}},
        {"type": "message_stop"},
    ]
    assert see(reader, *events) == [False, False, True]
    assert (reader.model, reader.usage) == ("m", Usage(12, 5, 4))


def test_an_event_stream_is_final_with_its_usage() -> None:
    """Text counts and sound does not; the model stays the first that was named."""
    reader = EventReader()
    events = [
        {"type": "speech.audio.delta", "delta": "AAAA", "model": "m"},
        {"type": "transcript.text.delta", "delta": "hey", "model": "n"},
        {"type": "transcript.text.done", "usage": USED},
    ]
    assert see(reader, *events) == [False, False, True]
    assert (reader.output_bytes, reader.model, reader.usage) == (3, "m", Usage(8, 2))


def test_a_run_is_final_with_its_usage() -> None:
    """Neither another object's event nor a step of the run is the run."""
    reader = RunReader()
    text = {"delta": {"content": [{"type": "text", "text": {"value": "four"}}]}}
    events = [
        {"event": "thread.created", "data": {"id": "thread", "model": "t", "usage": CHAT_USED}},
        {"event": "thread.run.created", "data": {"id": "run", "model": "m"}},
        {"event": "thread.message.delta", "data": text},
        {"event": "thread.run.step.completed", "data": {"id": "step", "usage": {"prompt_tokens": 3}}},
        {"event": "thread.run.in_progress", "data": {"id": "run", "usage": {"prompt_tokens": 0}}},
        {"event": "thread.run.completed", "data": {"id": "run", "usage": CHAT_USED}},
    ]
    assert see(reader, *events) == [False, False, False, False, False, True]
    assert (reader.job, reader.model, reader.output_bytes) == ("run", "m", 4)
    assert reader.usage == Usage(8, 2)


@pytest.mark.parametrize(
    "event,kind",
    [
        (delta(content="a"), ChatReader),
        ({"choices": []}, ChatReader),
        ({"choices": [{"text": "a"}]}, CompletionReader),
        ({"type": "response.created"}, ResponseReader),
        ({"type": "message_start", "message": {}}, MessageReader),
        ({"type": "content_block_delta", "delta": {}}, MessageReader),
        ({"type": "ping"}, MessageReader),
        ({"event": "thread.created"}, RunReader),
        ({"type": "transcript.text.delta"}, EventReader),
    ],
)
def test_the_first_event_shows_whose_stream_it_is(event: Any, kind: type[Reader]) -> None:
    """A stream of unknown origin is read by the reader that its first event calls for."""
    reader = AutoReader()
    see(reader, event)
    assert type(reader._as) is kind


def test_a_stream_of_unknown_origin_is_read_by_one_reader() -> None:
    """What its reader keeps is the account of the stream, from the first event to the last."""
    reader = AutoReader()
    tool = {"tool_calls": [{"function": {"name": "look", "arguments": "{}"}}]}
    last = {"model": "m", "choices": [], "usage": CHAT_USED}
    assert see(reader, delta(content="four"), delta(**tool), last) == [False, False, True]
    assert (reader.output_bytes, reader.model, reader.tools) == (6, "m", ["look"])
    assert (reader.usage, reader.failed) == (Usage(8, 2), False)


def model_of(value: Any) -> Any:
    """Return *value* as the SDKs' models are: with fields that are attributes."""
    if isinstance(value, dict):
        return SimpleNamespace(**{name: model_of(item) for name, item in value.items()})
    return [model_of(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "kind,event,output_bytes",
    [
        (ChatReader, delta(content="né"), 3),
        (ChatReader, delta(content="four"), 4),
        (ChatReader, delta(content=""), None),
        (ChatReader, {**delta(content="four"), "usage": CHAT_USED}, None),
        (ChatReader, delta(content="four", tool_calls=[{"function": {"name": "look"}}]), None),
        (ChatReader, {**delta(), "choices": delta(content="a")["choices"] * 2}, None),
        (ResponseReader, {"type": "response.output_text.delta", "delta": "né"}, 3),
        (ResponseReader, {"type": "response.refusal.delta", "delta": "no"}, None),
        (MessageReader, {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "né"}}, 3),
        (MessageReader, {"type": "content_block_delta", "delta": {"type": "x_delta", "text": "four"}}, None),
        (MessageReader, {"type": "x", "delta": {"type": "text_delta", "text": "four"}}, None),
        (EventReader, {"type": "transcript.text.delta", "delta": "hey"}, None),
    ],
)
def test_only_what_carries_text_alone_is_skimmed(kind: Any, event: Any, output_bytes: int | None) -> None:
    """Such an event is counted at once; every other one is left to be seen, and counts for nothing yet."""
    reader = kind()
    reader.model = "m"
    assert reader.skim(model_of(event)) is (output_bytes is not None)
    assert reader.output_bytes == (output_bytes or 0)


def test_a_chat_is_not_skimmed_before_its_model_is_known() -> None:
    """The first chunk names the model, so it is seen."""
    reader = ChatReader()
    assert reader.skim(model_of(delta(content="four"))) is False
    assert reader.output_bytes == 0


@pytest.mark.parametrize(
    "answer,usage",
    [
        ({"usage": {}, "output": [{"type": "web_search_call", "action": {"type": "search"}}]}, None),
        ({"data": [{}], "usage": {"input_tokens": 8, "output_tokens": 2}}, Usage(8, 2)),
        (
            {"usage": {**CHAT_USED, "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
                       "completion_tokens_details": {"reasoning_tokens": 0}}},
            Usage(8, 2, 4),
        ),
        (
            {"usage": {**CHAT_USED, "prompt_tokens_details": {"cached_tokens": 0},
                       "completion_tokens_details": {"reasoning_tokens": 1, "audio_tokens": 0}}},
            Usage(8, 2, reasoning_output_tokens=1),
        ),
        (
            {"usage": {**CHAT_USED, "prompt_tokens_details": {"cached_tokens": 0},
                       "completion_tokens_details": {"reasoning_tokens": 0}}},
            Usage(8, 2),
        ),
    ],
)  # fmt: skip
def test_details_are_read_where_any_says_something(answer: Any, usage: Usage | None) -> None:
    """One part that is not zero is enough, in the input or in the output; none adds nothing."""
    assert openai_usage(answer) == usage


def test_choices_of_an_odd_shape_call_no_tool() -> None:
    """What is no list has no choices in it."""
    assert openai_tools({"choices": 5}) == ()


def test_a_block_that_says_nothing_of_tokens_is_no_report() -> None:
    """A usage block of Anthropic's with neither input nor output is none, one with either is."""
    assert anthropic_usage({"usage": {"service_tier": "standard"}}) is None
    assert anthropic_usage({"usage": {"output_tokens": 2}}) == Usage(0, 2)
