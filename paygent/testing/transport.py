"""
HTTP clients for the SDKs that answer inside the process, without a socket.

::

    client = openai.OpenAI(api_key="any", http_client=stub_http_client("openai"))

Newer SDKs run on ``httpx2``, older ones on ``httpx``; the flavour is that of the installed SDK, and neither
is imported before a client is asked for.
"""

from __future__ import annotations

import asyncio
import importlib
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import timedelta
from functools import lru_cache
from typing import Any, Literal, TypeAlias

from paygent.testing.llm_server._provider import FakeProvider
from paygent.testing.llm_server._values import Answer, json_answer

FixedBody: TypeAlias = Answer | bytes | Mapping[str, Any]
Respond: TypeAlias = Callable[[str, str, Mapping[str, str], bytes], FixedBody]

_CUT = "peer closed connection without sending complete message body"
_SILENT = "server disconnected without sending a response"


def stub_http_client(
    sdk: Literal["openai", "anthropic"] = "openai",
    is_async: bool = False,
    respond: Respond | FixedBody | None = None,
) -> Any:
    """
    Return a client to pass as ``http_client=`` of the *sdk*'s own clients.

    Args:
        sdk: Whose flavour of HTTP client to build; that SDK is imported.
        is_async: For ``AsyncOpenAI`` and ``AsyncAnthropic``.
        respond: What to answer. A fixed body (``Answer``, JSON bytes, or an object encoded once) is given
            back as it is, as cheaply as the flavour allows: nothing of the request is read. A function gets
            ``(method, path with query, headers, body)``, as ``FakeProvider.answer`` does. Without it, a new
            ``FakeProvider`` answers.

    Raises:
        ModuleNotFoundError: The SDK is not installed.
    """
    flavour = http_flavour(sdk)
    kinds = _kinds(flavour)
    if respond is None:
        respond = FakeProvider().answer
    client_type = flavour.AsyncClient if is_async else flavour.Client
    transport = kinds["async" if is_async else "sync"]
    return client_type(transport=transport(flavour, _answering(respond)))


def http_flavour(sdk: str) -> Any:
    """Return the module, ``httpx`` or ``httpx2``, that the installed *sdk* builds its clients from."""
    package = importlib.import_module(sdk)
    for base in package.DefaultHttpxClient.__mro__:
        name = base.__module__.partition(".")[0]
        if name in ("httpx", "httpx2"):
            return importlib.import_module(name)
    raise TypeError(f"{sdk} uses neither httpx nor httpx2")


def _answering(respond: Respond | FixedBody) -> Callable[[Any], Answer] | Answer:
    """Return the ready answer where it is fixed, else a function of the HTTP request."""
    if not callable(respond):
        return _as_answer(respond)

    def answer(request: Any) -> Answer:
        target = request.url.raw_path.decode("ascii")
        return _as_answer(respond(request.method, target, dict(request.headers), request.content))

    return answer


def _as_answer(body: FixedBody) -> Answer:
    if isinstance(body, Answer):
        return body
    return Answer(body=body) if isinstance(body, bytes) else json_answer(body)


@lru_cache(maxsize=4)
def _kinds(flavour: Any) -> dict[str, Any]:
    """Build the transports on the base classes of *flavour*, which is not known before run time."""
    return {
        "sync": type("StubTransport", (_SyncTransport, flavour.BaseTransport), {}),
        "async": type("AsyncStubTransport", (_AsyncTransport, flavour.AsyncBaseTransport), {}),
    }


class _Stub:
    """What both transports share: the answer, and how it becomes a response of the flavour."""

    def __init__(self, flavour: Any, answer: Callable[[Any], Answer] | Answer) -> None:
        self.flavour = flavour
        self.answer = answer
        # The whole of a fixed plain answer is built once: building takes longer than all the rest.
        self.ready = vars(self._plain(answer)) if isinstance(answer, Answer) and _is_plain(answer) else None

    def ready_response(self, request: Any) -> Any:
        """Return a copy of the fixed answer; the copies share their headers."""
        response = object.__new__(self.flavour.Response)
        vars(response).update(self.ready, extensions={}, _request=request)
        return response

    def response_to(self, request: Any, answer: Answer, stream_type: Any) -> Any:
        """Build the response, or raise what a client gets where the connection is cut before it."""
        if answer.chunks is None and answer.controls.cut_after is None:
            return self._plain(answer, request=request)
        if answer.chunks is None and answer.controls.cut_after == 0:
            raise self.flavour.RemoteProtocolError(_SILENT, request=request)
        stream = stream_type(self.flavour, request, answer)
        headers = dict(answer.headers)
        return self.flavour.Response(answer.status, headers=headers, stream=stream, request=request)

    def _plain(self, answer: Answer, **request: Any) -> Any:
        headers = dict(answer.headers)
        response = self.flavour.Response(answer.status, headers=headers, content=answer.body, **request)
        # Clients set the time when they have read a body to its end; this one is read already.
        response.elapsed = timedelta(0)
        return response

    def wait_s(self, request: Any, answer: Answer) -> tuple[float, Any]:
        """
        Return how long to wait before the first byte, and the error to raise then, if any.

        A hanging answer ends with the request's read timeout; at once where that is unlimited.
        """
        controls = answer.controls
        limit_s = request.extensions.get("timeout", {}).get("read")
        if not controls.hang and controls.latency_s <= (math.inf if limit_s is None else limit_s):
            return controls.latency_s, None
        return limit_s or 0.0, self.flavour.ReadTimeout("the answer did not come in time", request=request)


def _is_plain(answer: Answer) -> bool:
    """Whether *answer* is one body that is neither slowed nor broken."""
    controls = answer.controls
    whole = answer.chunks is None and controls.cut_after is None
    return whole and not controls.latency_s and not controls.hang


class _SyncTransport(_Stub):
    def handle_request(self, request: Any) -> Any:
        if self.ready is not None:
            return self.ready_response(request)
        answer = self.answer
        if not isinstance(answer, Answer):
            request.read()
            answer = answer(request)
        seconds, error = self.wait_s(request, answer)
        if seconds:
            time.sleep(seconds)
        if error is not None:
            raise error
        return self.response_to(request, answer, _stream_types(self.flavour)[0])


class _AsyncTransport(_Stub):
    async def handle_async_request(self, request: Any) -> Any:
        if self.ready is not None:
            return self.ready_response(request)
        answer = self.answer
        if not isinstance(answer, Answer):
            await request.aread()
            answer = answer(request)
        seconds, error = self.wait_s(request, answer)
        if seconds:
            await asyncio.sleep(seconds)
        if error is not None:
            raise error
        return self.response_to(request, answer, _stream_types(self.flavour)[1])


# --- streams ----------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _stream_types(flavour: Any) -> tuple[Any, Any]:
    return (
        type("StubStream", (_SyncChunks, flavour.SyncByteStream), {}),
        type("AsyncStubStream", (_AsyncChunks, flavour.AsyncByteStream), {}),
    )


class _Chunks:
    """The chunks that are sent, and the error of a connection that is cut after them."""

    def __init__(self, flavour: Any, request: Any, answer: Answer) -> None:
        chunks = (answer.body[: len(answer.body) // 2],) if answer.chunks is None else answer.chunks
        self.chunks = chunks[: answer.controls.cut_after]
        self.pause_s = answer.controls.chunk_latency_s
        cut = answer.controls.cut_after is not None
        self.error = flavour.RemoteProtocolError(_CUT, request=request) if cut else None


class _SyncChunks(_Chunks):
    def __iter__(self) -> Iterator[bytes]:
        for chunk in self.chunks:
            yield chunk
            if self.pause_s:
                time.sleep(self.pause_s)
        if self.error is not None:
            raise self.error


class _AsyncChunks(_Chunks):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            yield chunk
            if self.pause_s:
                await asyncio.sleep(self.pause_s)
        if self.error is not None:
            raise self.error
