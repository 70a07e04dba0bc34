"""Providers made of bytes: real SDK clients over a transport that answers from a table."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import anthropic
import openai
from openai import _base_client

# openai 3 and anthropic 1 moved from httpx to httpx2.
http: Any = getattr(_base_client, "httpx2", None) or _base_client.httpx
anthropic_http: Any = getattr(anthropic._base_client, "httpx2", None) or anthropic._base_client.httpx

MESSAGES: list[Any] = [{"role": "user", "content": "Say hello"}]
MESSAGES_BYTES = len("user") + len("Say hello")


def chat(**more: Any) -> dict[str, Any]:
    """Return a chat completion."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello"}}
        ],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
        **more,
    }


def response(**more: Any) -> dict[str, Any]:
    """Return an answer of the Responses API."""
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "gpt-4o-mini-2024-07-18",
        "status": "completed",
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 11,
            "input_tokens_details": {"cached_tokens": 4},
            "output_tokens": 7,
            "output_tokens_details": {"reasoning_tokens": 3},
            "total_tokens": 18,
        },
        **more,
    }


def message(**more: Any) -> dict[str, Any]:
    """Return an Anthropic message."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-20250514",
        "content": [{"type": "text", "text": "Hello"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 11, "output_tokens": 7},
        **more,
    }


def _chat_chunk(choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    model = "gpt-4o-mini-2024-07-18"
    return {
        "id": "c", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": choices, **more
    }  # fmt: skip


def chat_events(*, usage: bool) -> list[bytes]:
    """Return the events of a chat stream; the one with usage only where it was asked for."""
    deltas = [{"role": "assistant", "content": "Hel"}, {"content": "lo "}, {"content": "you"}]
    chunks = [_chat_chunk([{"index": 0, "delta": delta, "finish_reason": None}]) for delta in deltas]
    if usage:
        used = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
        chunks.append(_chat_chunk([], usage=used))
    return [*map(_data, chunks), b"data: [DONE]\n\n"]


def response_events() -> list[bytes]:
    """Return the events of a Responses stream."""
    deltas = [
        {
            "type": "response.output_text.delta", "delta": part, "item_id": "i", "output_index": 0,
            "content_index": 0, "sequence_number": 1, "logprobs": [],
        }
        for part in ("Hel", "lo ", "you")
    ]  # fmt: skip
    item = {"type": "message", "id": "i", "role": "assistant", "status": "in_progress", "content": []}
    part = {"type": "output_text", "text": "", "annotations": []}
    opening = [
        {"type": "response.output_item.added", "output_index": 0, "item": item, "sequence_number": 1},
        {
            "type": "response.content_part.added", "output_index": 0, "content_index": 0, "item_id": "i",
            "part": part, "sequence_number": 1,
        },
    ]  # fmt: skip
    created = {"type": "response.created", "response": response(status="in_progress", usage=None)}
    whole = {**item, "status": "completed", "content": [{**part, "text": "Hello you"}]}
    done = {"type": "response.completed", "response": response(output=[whole])}
    events = ({**created, "sequence_number": 0}, *opening, *deltas, {**done, "sequence_number": 9})
    return [_named(event) for event in events]


def message_events() -> list[bytes]:
    """Return the events of an Anthropic stream: usage at the start, and cumulative at the end."""
    start = message(
        content=[], usage={"input_tokens": 11, "output_tokens": 1, "cache_read_input_tokens": 100}
    )
    deltas = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": part}}
        for part in ("Hel", "lo ", "you")
    ]
    return [
        _named(event)
        for event in (
            {"type": "message_start", "message": start},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            *deltas,
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}},
            {"type": "message_stop"},
        )
    ]


def _data(event: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def _named(event: dict[str, Any]) -> bytes:
    return b"event: " + event["type"].encode() + b"\n" + _data(event)


class Cut:
    """Put into a list of blocks: the connection breaks here."""


class Hang:
    """Put into a list of blocks of an async client: nothing arrives any more; ``reached`` says when."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()


class Blocks(http.SyncByteStream, http.AsyncByteStream):  # type: ignore[misc]  # of either library
    """A body that arrives block by block."""

    def __init__(self, blocks: Iterable[Any], library: Any = http) -> None:
        self._blocks = list(blocks)
        self._library = library
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        for block in self._blocks:
            if block is Cut:
                raise self._library.ReadError("cut")
            yield block

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for block in self._blocks:
            if isinstance(block, Hang):
                block.reached.set()
                await asyncio.Event().wait()
            if block is Cut:
                raise self._library.ReadError("cut")
            yield block

    def close(self) -> None:
        """Note that the body was closed."""
        self.closed = True

    async def aclose(self) -> None:
        """Note that the body was closed."""
        self.closed = True


Answer = Callable[[Any], Any]


class Wire:
    """Answers every request by *answer*, and keeps what was sent."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.sent: list[Any] = []

    def handle(self, request: Any, library: Any) -> Any:
        """Return the answer as a response of *library*: JSON, text, bytes, a status, or a list of blocks."""
        self.sent.append(request)
        answer = self.answer(request)
        if isinstance(answer, library.Response):
            return answer
        if isinstance(answer, list):
            headers = {"content-type": "text/event-stream"}
            return library.Response(200, headers=headers, stream=_blocks(answer, library))
        if isinstance(answer, int):
            return library.Response(answer, json={"error": {"message": "no", "type": "x"}})
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        kind = "application/octet-stream" if isinstance(answer, bytes) else "application/json"
        return library.Response(200, headers={"content-type": kind}, stream=_blocks([body], library))

    @property
    def body(self) -> dict[str, Any]:
        """The JSON body of the last request."""
        body: dict[str, Any] = json.loads(self.sent[-1].content)
        return body

    def transport(self, library: Any) -> Any:
        """Return a transport for sync clients of *library*."""
        wire = self

        class Transport(library.BaseTransport):  # type: ignore[misc]  # of either library
            def handle_request(self, request: Any) -> Any:
                request.read()
                return wire.handle(request, library)

        return Transport()

    def async_transport(self, library: Any) -> Any:
        """Return a transport for async clients of *library*."""
        wire = self

        class Transport(library.AsyncBaseTransport):  # type: ignore[misc]  # of either library
            async def handle_async_request(self, request: Any) -> Any:
                await request.aread()
                return wire.handle(request, library)

        return Transport()

    def openai(self, kind: Any = None, **options: Any) -> Any:
        """Return a sync OpenAI client (or one of class *kind*) on this wire."""
        options.setdefault("max_retries", 0)
        client = http.Client(transport=self.transport(http))
        return (kind or openai.OpenAI)(**{"api_key": "test", "http_client": client, **options})

    def async_openai(self, kind: Any = None, **options: Any) -> Any:
        """Return an async OpenAI client (or one of class *kind*) on this wire."""
        options.setdefault("max_retries", 0)
        client = http.AsyncClient(transport=self.async_transport(http))
        return (kind or openai.AsyncOpenAI)(**{"api_key": "test", "http_client": client, **options})

    def anthropic(self, kind: Any = None, **options: Any) -> Any:
        """Return a sync Anthropic client (or one of class *kind*) on this wire."""
        options.setdefault("max_retries", 0)
        options.setdefault("http_client", anthropic_http.Client(transport=self.transport(anthropic_http)))
        if kind is None:
            return anthropic.Anthropic(api_key="test", **options)
        return kind(**options)

    def async_anthropic(self, kind: Any = None, **options: Any) -> Any:
        """Return an async Anthropic client (or one of class *kind*) on this wire."""
        options.setdefault("max_retries", 0)
        client = anthropic_http.AsyncClient(transport=self.async_transport(anthropic_http))
        options.setdefault("http_client", client)
        if kind is None:
            return anthropic.AsyncAnthropic(api_key="test", **options)
        return kind(**options)


def _blocks(blocks: list[Any], library: Any) -> Any:
    if library is http:
        return Blocks(blocks, library)

    class OtherBlocks(Blocks, library.SyncByteStream, library.AsyncByteStream):  # type: ignore[misc]
        """The same, of the other HTTP library."""

    return OtherBlocks(blocks, library)
