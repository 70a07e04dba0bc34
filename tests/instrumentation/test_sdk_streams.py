"""Streams: read along, settled exactly once, however they end."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any, NamedTuple

import openai
import pytest
from sdk_fakes import MESSAGES, Cut, Hang, Wire, chat_events, message_events, response_events
from sdk_recording import RecordedCall, RecordingMeter

from paygent.core.usage import Usage


class Kind(NamedTuple):
    """One kind of stream: its events, what it reports in full, and the words of its deltas."""

    name: str
    events: list[bytes]
    usage: Usage | None
    create: Callable[[Any], Any]
    provider: str


def _create_chat(client: Any) -> Any:
    options = {"include_usage": True}
    return client.chat.completions.create(model="m", messages=MESSAGES, stream=True, stream_options=options)


def _create_silent_chat(client: Any) -> Any:
    options = {"include_usage": False}
    return client.chat.completions.create(model="m", messages=MESSAGES, stream=True, stream_options=options)


def _create_response(client: Any) -> Any:
    return client.responses.create(model="m", input="Say hello", stream=True)


def _create_message(client: Any) -> Any:
    return client.messages.create(model="m", max_tokens=9, messages=MESSAGES, stream=True)


KINDS = [
    Kind("chat", chat_events(usage=True), Usage(11, 7), _create_chat, "openai"),
    Kind("silent-chat", chat_events(usage=False), None, _create_silent_chat, "openai"),
    Kind(
        "responses",
        response_events(),
        Usage(11, 7, cache_read_input_tokens=4, reasoning_output_tokens=3),
        _create_response,
        "openai",
    ),
    Kind(
        "messages", message_events(), Usage(111, 7, cache_read_input_tokens=100), _create_message, "anthropic"
    ),
]
# Every kind of stream, left after each number of events.
CASES = [
    pytest.param(kind, index, id=f"{kind.name}-{index}")
    for kind in KINDS
    for index in range(sum(block.startswith((b"data: {", b"event:")) for block in kind.events) + 1)
]
by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
at_each_event = pytest.mark.parametrize("kind,index", CASES)


def _client(kind: Kind, way: str, blocks: list[Any] | None = None) -> Any:
    wire = Wire(lambda _: list(kind.events if blocks is None else blocks))
    maker = {
        ("openai", "sync"): wire.openai,
        ("openai", "async"): wire.async_openai,
        ("anthropic", "sync"): wire.anthropic,
        ("anthropic", "async"): wire.async_anthropic,
    }
    return maker[kind.provider, way]()


def _seen(kind: Kind, index: int) -> str:
    """Return the text in the first *index* events."""
    blocks = b"".join(kind.events[:index]).decode()
    return "".join(part for part in ("Hel", "lo ", "you") if f'"{part}"' in blocks)


def _check_left(call: RecordedCall, kind: Kind, index: int) -> None:
    """Assert that a stream left after *index* events is settled once, by what it reported or an estimate."""
    assert call.attempts == 1
    if call.how == "exact":
        assert (call.usage, index >= len(kind.events) - 1) == (kind.usage, True)
    else:
        assert (call.how, call.output_bytes) == ("estimated", len(_seen(kind, index)))
        if kind.name == "messages" and index:
            assert (call.usage.input_tokens, call.usage.cache_read_input_tokens) == (111, 100)


# --- to the end -------------------------------------------------------------------------------------------


@by_kind
@pytest.mark.parametrize("way", ["sync", "async"])
def test_stream_read_to_its_end_is_settled_once(meter: RecordingMeter, kind: Kind, way: str) -> None:
    """A stream read to its end is settled with the usage reported, else by the text that was seen."""
    events = list(kind.create(_client(kind, way))) if way == "sync" else asyncio.run(_collect(kind))
    assert len(events) == len([b for b in kind.events if b"[DONE]" not in b])
    call = meter.only
    assert call.attempts == 1
    if kind.usage is None:
        assert (call.how, call.output_bytes) == ("estimated", len("Hello you"))
    else:
        assert (call.how, call.usage) == ("exact", kind.usage)


async def _collect(kind: Kind) -> list[Any]:
    return [event async for event in await kind.create(_client(kind, "async"))]


@by_kind
def test_stream_settles_on_its_last_event_not_on_close(meter: RecordingMeter, kind: Kind) -> None:
    """The hold of a finished stream is free before the caller asks for the event after the last one."""
    if kind.usage is None:
        return
    stream = kind.create(_client(kind, "sync"))
    last = len([b for b in kind.events if b"[DONE]" not in b])
    for _ in range(last):
        next(stream)
    assert (meter.only.how, meter.only.usage) == ("exact", kind.usage)
    stream.close()
    assert meter.only.attempts == 1


# --- left early -------------------------------------------------------------------------------------------


@at_each_event
def test_stream_broken_out_of_in_a_with_block(meter: RecordingMeter, kind: Kind, index: int) -> None:
    """``break`` inside ``with stream:`` settles on leaving the block."""
    with kind.create(_client(kind, "sync")) as stream:
        for number, _ in enumerate(stream, 1):
            if number >= index:
                break
    _check_left(meter.only, kind, max(index, 1))


@at_each_event
def test_stream_closed(meter: RecordingMeter, kind: Kind, index: int) -> None:
    """``close()`` after any number of events settles at once, also on a stream that was never read."""
    stream = kind.create(_client(kind, "sync"))
    for _ in range(index):
        next(stream)
    stream.close()
    _check_left(meter.only, kind, index)


@at_each_event
def test_stream_dropped(meter: RecordingMeter, kind: Kind, index: int) -> None:
    """A stream that is let go settles without waiting for the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        stream = kind.create(_client(kind, "sync"))
        for _ in range(index):
            next(stream)
        del stream
        _check_left(meter.only, kind, index)
    finally:
        gc.enable()


@at_each_event
def test_stream_cut_by_the_provider(meter: RecordingMeter, kind: Kind, index: int) -> None:
    """A connection that breaks raises the SDK's error, and what was seen is settled by estimate."""
    stream = kind.create(_client(kind, "sync", [*kind.events[:index], Cut]))
    with pytest.raises(Exception, match=r"cut|Connection error"):
        list(stream)
    _check_left(meter.only, kind, index)


@at_each_event
def test_async_stream_closed(meter: RecordingMeter, kind: Kind, index: int) -> None:
    """``await close()`` after any number of events settles at once."""

    async def run() -> None:
        stream = await kind.create(_client(kind, "async"))
        for _ in range(index):
            await anext(stream)
        await stream.close()
        _check_left(meter.only, kind, index)

    asyncio.run(run())


@at_each_event
def test_async_stream_broken_out_of_in_a_with_block(meter: RecordingMeter, kind: Kind, index: int) -> None:
    """``break`` inside ``async with stream:`` settles on leaving the block."""

    async def run() -> None:
        number = 0
        async with await kind.create(_client(kind, "async")) as stream:
            async for _ in stream:
                number += 1
                if number >= index:
                    break
        _check_left(meter.only, kind, max(index, 1))

    asyncio.run(run())


@at_each_event
def test_async_stream_dropped(meter: RecordingMeter, kind: Kind, index: int) -> None:
    """An async stream that is let go settles within a turn of the loop, without the garbage collector."""

    async def run() -> None:
        stream = await kind.create(_client(kind, "async"))
        for _ in range(index):
            await anext(stream)
        del stream
        await asyncio.sleep(0)
        _check_left(meter.only, kind, index)

    gc.collect()
    gc.disable()
    try:
        asyncio.run(run())
    finally:
        gc.enable()


@at_each_event
def test_async_stream_cut_by_the_provider(meter: RecordingMeter, kind: Kind, index: int) -> None:
    """A connection that breaks raises the SDK's error, and what was seen is settled by estimate."""

    async def run() -> None:
        stream = await kind.create(_client(kind, "async", [*kind.events[:index], Cut]))
        with pytest.raises(Exception, match=r"cut|Connection error"):
            _ = [event async for event in stream]

    asyncio.run(run())
    _check_left(meter.only, kind, index)


@at_each_event
def test_async_stream_cancelled(meter: RecordingMeter, kind: Kind, index: int) -> None:
    """A task cancelled while it waits for the next event settles by estimate, also if it keeps the stream."""

    async def read(hang: Hang, kept: list[Any]) -> None:
        stream = await kind.create(_client(kind, "async", [*kind.events[:index], hang]))
        kept.append(stream)
        async for _ in stream:
            pass

    async def run() -> None:
        hang, kept = Hang(), []
        task = asyncio.create_task(read(hang, kept))
        await hang.reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert kept != []
        _check_left(meter.only, kind, index)

    asyncio.run(run())


def test_error_event_before_any_output_costs_nothing(meter: RecordingMeter) -> None:
    """A stream whose first event is the provider's own error is settled as refused."""
    stream = _create_chat(Wire(lambda _: [b'data: {"error": {"message": "overloaded"}}\n\n']).openai())
    with pytest.raises(openai.APIError):
        list(stream)
    assert (meter.only.how, meter.only.attempts) == ("void", 1)


def test_failed_response_without_usage_costs_nothing(meter: RecordingMeter) -> None:
    """A ``response.failed`` before any output and without usage is settled as refused."""
    failed = b'data: {"type": "response.failed", "response": {"id": "r", "usage": null}}\n\n'
    list(_create_response(Wire(lambda _: [failed]).openai()))
    assert (meter.only.how, meter.only.attempts) == ("void", 1)


# --- the SDK's object -------------------------------------------------------------------------------------


@by_kind
def test_stream_stays_the_sdks_own(meter: RecordingMeter, kind: Kind) -> None:
    """The stream is the SDK's own class, with its response, its context manager and its close."""
    stream = kind.create(_client(kind, "sync"))
    assert type(stream).__name__ == "Stream"
    assert stream.response.status_code == 200
    with stream as inside:
        assert inside is stream
        assert next(iter(stream)) is not None
    assert stream.response.is_closed


@pytest.mark.parametrize("early", [False, True])
def test_chat_stream_helper(meter: RecordingMeter, early: bool) -> None:
    """``chat.completions.stream()`` is metered, read to the end or left."""
    helper = _chat_helper(Wire(lambda _: chat_events(usage=True)).openai())
    with helper as stream:
        for _ in stream:
            if early:
                break
    assert (meter.only.how, meter.only.attempts) == ("estimated" if early else "exact", 1)


def _chat_helper(client: Any) -> Any:
    chat = client.chat.completions
    owner = chat if hasattr(chat, "stream") else client.beta.chat.completions
    return owner.stream(model="m", messages=MESSAGES, stream_options={"include_usage": True})


@pytest.mark.parametrize("early", [False, True])
def test_response_stream_helper(meter: RecordingMeter, early: bool) -> None:
    """``responses.stream()`` is metered, read to the end or left."""
    with Wire(lambda _: response_events()).openai().responses.stream(model="m", input="x") as stream:
        for _ in stream:
            if early:
                break
    assert (meter.only.how, meter.only.attempts) == ("estimated" if early else "exact", 1)


@pytest.mark.parametrize("early", [False, True])
def test_message_stream_helper(meter: RecordingMeter, early: bool) -> None:
    """``messages.stream()`` is metered, read to the end or left."""
    client = Wire(lambda _: message_events()).anthropic()
    with client.messages.stream(model="m", max_tokens=9, messages=MESSAGES) as stream:
        for _ in stream:
            if early:
                break
    assert (meter.only.how, meter.only.attempts) == ("estimated" if early else "exact", 1)


def test_async_message_stream_helper(meter: RecordingMeter) -> None:
    """The async ``messages.stream()`` is metered, and builds its final message."""

    async def run() -> Any:
        client = Wire(lambda _: message_events()).async_anthropic()
        async with client.messages.stream(model="m", max_tokens=9, messages=MESSAGES) as stream:
            return await stream.get_final_text()

    assert asyncio.run(run()) == "Hello you"
    assert (meter.only.how, meter.only.attempts) == ("exact", 1)


# --- asking for usage -------------------------------------------------------------------------------------


def _plain_stream(client: Any, **more: Any) -> Any:
    return client.chat.completions.create(model="m", messages=MESSAGES, stream=True, **more)


def _obliging(wire_request: Any) -> list[bytes]:
    return chat_events(usage=b"include_usage" in wire_request.content)


def test_usage_is_asked_for_on_openais_host_and_hidden(meter: RecordingMeter) -> None:
    """On OpenAI's own host usage is asked for; the caller sees the chunks that he would have seen without."""
    wire = Wire(_obliging)
    chunks = list(_plain_stream(wire.openai()))
    assert wire.body["stream_options"] == {"include_usage": True}
    assert [bool(chunk.choices) for chunk in chunks] == [True] * 3
    assert (meter.only.how, meter.only.usage) == ("exact", Usage(11, 7))


def test_usage_is_not_asked_for_elsewhere(meter: RecordingMeter) -> None:
    """Another host may refuse the field: nothing is added, and the call is estimated."""
    wire = Wire(_obliging)
    list(_plain_stream(wire.openai(base_url="http://127.0.0.1:9/v1")))
    assert "stream_options" not in wire.body
    assert meter.only.how == "estimated"


def test_usage_is_asked_for_elsewhere_if_told_so(meter: RecordingMeter) -> None:
    """``init(include_usage=True)`` asks any host."""
    meter.include_usage = True
    list(_plain_stream(Wire(_obliging).openai(base_url="http://127.0.0.1:9/v1")))
    assert meter.only.how == "exact"


def test_usage_is_not_asked_for_if_told_so(meter: RecordingMeter) -> None:
    """``init(include_usage=False)`` never asks."""
    meter.include_usage = False
    wire = Wire(_obliging)
    list(_plain_stream(wire.openai()))
    assert "stream_options" not in wire.body


@pytest.mark.parametrize("where", ["stream_options", "extra_body"])
def test_callers_stream_options_are_respected(meter: RecordingMeter, where: str) -> None:
    """Whatever the caller set stays as it is, and no chunk is hidden."""
    options: Any = {"include_usage": True}
    given = (
        {"stream_options": options}
        if where == "stream_options"
        else {"extra_body": {"stream_options": options}}
    )
    chunks = list(_plain_stream(Wire(_obliging).openai(), **given))
    assert [bool(chunk.choices) for chunk in chunks] == [True, True, True, False]


def test_usage_in_every_chunk_takes_the_last(meter: RecordingMeter) -> None:
    """A server that reports usage so far in every chunk is settled at the end, with the last one."""
    blocks = [
        b'data: {"id": "c", "choices": [{"index": 0, "delta": {"content": "x"}}], "model": "m",'
        b' "usage": {"prompt_tokens": 5, "completion_tokens": %d}}\n\n' % number
        for number in (1, 2, 3)
    ]
    list(_create_chat(Wire(lambda _: [*blocks, b"data: [DONE]\n\n"]).openai()))
    assert (meter.only.how, meter.only.usage) == ("exact", Usage(5, 3))


def test_tool_arguments_and_reasoning_are_counted(meter: RecordingMeter) -> None:
    """An estimate counts text, tool arguments and reasoning, and names the tools."""
    deltas = [
        b'{"reasoning_content": "hmm"}',
        b'{"tool_calls": [{"index": 0, "function": {"name": "find", "arguments": ""}}]}',
        b'{"tool_calls": [{"index": 0, "function": {"arguments": "{\\"a\\": 1}"}}]}',
        '{"content": "é"}'.encode(),
    ]
    blocks = [b'data: {"choices": [{"index": 0, "delta": %s}]}\n\n' % delta for delta in deltas]
    list(_create_silent_chat(Wire(lambda _: blocks).openai()))
    assert (meter.only.output_bytes, meter.only.tools) == (3 + 8 + 2, ("find",))


def test_odd_chunks_reach_the_caller(meter: RecordingMeter) -> None:
    """Chunks without choices, without deltas or with nulls pass, and the stream is settled once."""
    blocks = [
        b'data: {"choices": null}\n\n',
        b'data: {"choices": [{"index": 0}]}\n\n',
        b'data: {"choices": [{"index": 0, "delta": null}]}\n\n',
        b"data: {}\n\n",
        b"data: [DONE]\n\n",
    ]
    assert len(list(_create_silent_chat(Wire(lambda _: blocks).openai()))) == 4
    assert (meter.only.how, meter.only.attempts) == ("estimated", 1)


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[-1]], ids=lambda kind: kind.provider)
def test_an_async_iterator_is_known_by_name(meter: RecordingMeter, kind: Kind) -> None:
    """The type of an async iterator has the name of the SDK's own: sentry-sdk before 2.57 looks at it."""

    async def run() -> None:
        async with await kind.create(_client(kind, "async")) as stream:
            assert str(type(stream._iterator)) == "<class 'async_generator'>"

    asyncio.run(run())
