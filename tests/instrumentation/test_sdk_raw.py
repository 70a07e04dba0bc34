"""Raw and streaming responses: wrappers whose body the caller parses, reads as bytes, or leaves."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
from typing import Any

import brotli
import pytest
from sdk_fakes import MESSAGES, Blocks, Cut, Wire, chat, chat_events, http, message, message_events
from sdk_recording import RecordingMeter

from paygent.core.usage import Usage

CHAT: dict[str, Any] = {"model": "m", "messages": MESSAGES}
STREAM: dict[str, Any] = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
WHOLE = chat_events(usage=True)


def test_raw_response_is_settled_at_once(meter: RecordingMeter) -> None:
    """``with_raw_response`` of a plain call: its body is read already, and settles the call."""
    raw = Wire(lambda _: chat()).openai().chat.completions.with_raw_response.create(**CHAT)
    assert (meter.only.how, meter.only.usage, meter.only.response_model) == (
        "exact", Usage(11, 7), "gpt-4o-mini-2024-07-18"
    )  # fmt: skip
    assert type(raw).__name__ == "LegacyAPIResponse"
    assert raw.parse().usage.total_tokens == 18


def test_async_raw_response_is_settled_at_once(meter: RecordingMeter) -> None:
    """The same on an async client."""
    create = Wire(lambda _: chat()).async_openai().chat.completions.with_raw_response.create
    asyncio.run(create(**CHAT))
    assert (meter.only.how, meter.only.usage) == ("exact", Usage(11, 7))


def test_anthropic_raw_response_is_settled_at_once(meter: RecordingMeter) -> None:
    """The same on the Anthropic SDK, whose raw wrapper is another class."""
    create = Wire(lambda _: message()).anthropic().messages.with_raw_response.create
    assert create(model="m", max_tokens=9, messages=MESSAGES).parse().id == "msg_1"
    assert (meter.only.how, meter.only.usage) == ("exact", Usage(11, 7))


@pytest.mark.parametrize("index", range(6))
def test_raw_stream_parsed(meter: RecordingMeter, index: int) -> None:
    """A stream parsed out of a raw response is metered as any other, read to the end or closed."""
    raw = Wire(lambda _: WHOLE).openai().chat.completions.with_raw_response.create(**STREAM)
    assert meter.only.how is None
    stream = raw.parse()
    assert type(stream).__name__ == "Stream"
    assert raw.parse() is stream
    for _ in range(min(index, 4)):
        next(stream)
    if index == 5:
        list(stream)
    stream.close()
    assert (meter.only.how, meter.only.attempts) == ("exact" if index >= 4 else "estimated", 1)
    if index < 4:
        assert meter.only.output_bytes == len("".join(["Hel", "lo ", "you"][:index]))


def test_async_raw_stream_parsed(meter: RecordingMeter) -> None:
    """The same on async clients of both SDKs."""

    async def run() -> None:
        client = Wire(lambda _: WHOLE).async_openai()
        raw = await client.chat.completions.with_raw_response.create(**STREAM)
        assert len([chunk async for chunk in raw.parse()]) == 4
        anthropic = Wire(lambda _: message_events()).async_anthropic()
        create = anthropic.messages.with_raw_response.create
        raw = await create(model="m", max_tokens=9, messages=MESSAGES, stream=True)
        parsed = raw.parse()
        stream = await parsed if asyncio.iscoroutine(parsed) else parsed
        assert len([event async for event in stream]) == 8

    asyncio.run(run())
    assert [(call.how, call.attempts) for call in meter.calls] == [("exact", 1), ("exact", 1)]


def test_raw_stream_dropped_unparsed(meter: RecordingMeter) -> None:
    """A raw stream that is let go unread is settled by estimate, without the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        raw = Wire(lambda _: WHOLE).openai().chat.completions.with_raw_response.create(**STREAM)
        del raw
        assert (meter.only.how, meter.only.attempts) == ("estimated", 1)
    finally:
        gc.enable()


def test_raw_stream_parsed_and_dropped(meter: RecordingMeter) -> None:
    """A raw stream parsed, read in part and let go is settled without the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        raw = Wire(lambda _: WHOLE).openai().chat.completions.with_raw_response.create(**STREAM)
        stream = raw.parse()
        next(stream)
        del raw, stream
        assert (meter.only.how, meter.only.output_bytes, meter.only.attempts) == ("estimated", 3, 1)
    finally:
        gc.enable()


@pytest.mark.parametrize("reader", ["iter_lines", "iter_bytes", "read", "iter_text"])
def test_streaming_response_read_as_bytes(meter: RecordingMeter, reader: str) -> None:
    """``with_streaming_response`` read as lines, bytes or text is settled by the events that passed."""
    create = Wire(lambda _: WHOLE).openai().chat.completions.with_streaming_response.create
    with create(**STREAM) as raw:
        seen = getattr(raw, reader)()
        seen if isinstance(seen, bytes) else list(seen)
    assert (meter.only.how, meter.only.usage, meter.only.attempts) == ("exact", Usage(11, 7), 1)


def test_streaming_response_left_in_the_middle(meter: RecordingMeter) -> None:
    """``with_streaming_response`` left early is settled by what has passed."""
    create = Wire(lambda _: WHOLE).openai().chat.completions.with_streaming_response.create
    with create(**STREAM) as raw:
        lines = raw.iter_lines()
        for _ in range(3):
            next(lines)
    assert (meter.only.how, meter.only.output_bytes, meter.only.attempts) == ("estimated", len("Hello "), 1)


def test_streaming_response_never_read(meter: RecordingMeter) -> None:
    """``with_streaming_response`` of a plain call, left unread, is settled by estimate."""
    with Wire(lambda _: chat()).openai().chat.completions.with_streaming_response.create(**CHAT):
        assert meter.only.how is None
    assert (meter.only.how, meter.only.attempts) == ("estimated", 1)


@pytest.mark.parametrize("reader", ["parse", "json", "text", "read"])
def test_streaming_response_of_a_plain_call(meter: RecordingMeter, reader: str) -> None:
    """``with_streaming_response`` of a plain call is settled by its body, however it is read."""
    create = Wire(lambda _: chat()).openai().chat.completions.with_streaming_response.create
    with create(**CHAT) as raw:
        getattr(raw, reader)()
        assert meter.only.how == "exact"
    assert (meter.only.usage, meter.only.attempts) == (Usage(11, 7), 1)


def test_async_streaming_response(meter: RecordingMeter) -> None:
    """The same on an async client, parsed into a stream and into a model."""

    async def run() -> None:
        completions = (
            Wire(lambda r: WHOLE if b"stream" in r.content else chat()).async_openai().chat.completions
        )
        async with completions.with_streaming_response.create(**STREAM) as raw:
            assert len([chunk async for chunk in await raw.parse()]) == 4
        async with completions.with_streaming_response.create(**CHAT) as raw:
            assert (await raw.parse()).id == "chatcmpl-1"

    asyncio.run(run())
    assert [(call.how, call.attempts) for call in meter.calls] == [("exact", 1), ("exact", 1)]


def packed_as(encoding: str, packed: bytes) -> Any:
    """A server that answers with *packed*."""
    headers = {"content-type": "application/json", "content-encoding": encoding}
    return lambda _: http.Response(200, headers=headers, stream=Blocks([packed[:20], packed[20:]]))


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("br", brotli.compress)])
def test_compressed_body_is_read(meter: RecordingMeter, encoding: str, pack: Any) -> None:
    """A body that travels compressed is settled by what is in it, in whatever the HTTP library can read."""
    answer = packed_as(encoding, pack(json.dumps(chat()).encode()))
    with Wire(answer).openai().chat.completions.with_streaming_response.create(**CHAT) as raw:
        assert raw.parse().id == "chatcmpl-1"
    assert (meter.only.how, meter.only.usage) == ("exact", Usage(11, 7))


@pytest.mark.parametrize("encoding", ["gzip", "br", "snappy"])
def test_a_body_that_cannot_be_decoded_counts_by_its_length(meter: RecordingMeter, encoding: str) -> None:
    """Where nobody can read what a compressed body says, its length is the estimate of its output."""
    answer = packed_as(encoding, b"\x00" * 4000)
    with Wire(answer).openai().chat.completions.with_streaming_response.create(**CHAT) as raw:
        list(raw.http_response.iter_raw())
    assert (meter.only.how, meter.only.output_bytes) == ("estimated", 4000)


def test_raw_stream_cut(meter: RecordingMeter) -> None:
    """A raw stream whose connection breaks is settled by what has passed."""
    create = Wire(lambda _: [*WHOLE[:2], Cut]).openai().chat.completions.with_streaming_response.create
    with pytest.raises(http.ReadError), create(**STREAM) as raw:
        list(raw.iter_lines())
    assert (meter.only.how, meter.only.output_bytes, meter.only.attempts) == ("estimated", len("Hello "), 1)


def test_speech_is_settled_by_its_characters(meter: RecordingMeter) -> None:
    """Speech reports no usage: it is settled by the characters of the request, read or streamed."""
    audio = Wire(lambda _: b"sound").openai().audio
    assert audio.speech.create(model="tts-1", voice="alloy", input="Grüße").content == b"sound"
    with audio.speech.with_streaming_response.create(model="tts-1", voice="alloy", input="Grüße") as raw:
        assert b"".join(raw.iter_bytes()) == b"sound"
    assert [(call.how, call.usage) for call in meter.calls] == [("exact", Usage(characters=5))] * 2
