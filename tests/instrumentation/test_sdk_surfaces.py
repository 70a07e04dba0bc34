"""
Every POSTing method of the installed SDKs, found by reflection, and what the seam makes of it.

The methods are found in the SDKs' own source (``self._post(``) and called through real clients with arguments
made from their signatures, so that a surface added by a newer SDK fails here until it is listed.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from typing import Any, NamedTuple

import anthropic
import openai
import pytest
from sdk_fakes import Wire, message, message_events, response
from sdk_recording import RecordingMeter

from paygent.instrumentation.operations import operation_of, path_of

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # old surfaces are metered too

# Methods that send through another method of the list, or need more than arguments.
NOT_CALLABLE_HERE = frozenset(("upload_file_chunked", "upload_and_poll", "create_and_poll"))


# Arguments that the signature calls optional, and the method does not.
_MORE_ARGUMENTS: dict[str, dict[str, Any]] = {
    "audio.voices.create": {"name": "x", "audio_sample": b"x", "consent": "x"},
    "beta.agents.automations.create": {"name": "x", "run_at": "x", "target": {}, "type": "one_time"},
    "beta.agents.environments.files.create": {"file_id": "x", "path": "x", "type": "file"},
    "admin.organization.external_keys.create": {
        "external_id": "x", "kms_arn": "x", "name": "x", "role_arn": "x", "type": "aws",
    },
}  # fmt: skip


class Method(NamedTuple):
    """One method that POSTs: the path of attributes to it, and its function."""

    provider: str
    is_async: bool
    path: str
    function: Any

    def __str__(self) -> str:
        return f"{self.provider}{'.async' if self.is_async else ''}.{self.path}"


def _load_all(package: Any) -> None:
    for found in pkgutil.walk_packages(package.resources.__path__, package.resources.__name__ + "."):
        importlib.import_module(found.name)


def _resources(owner: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every resource that can be reached from *owner* by attributes, with the path to it."""
    for name in sorted({*dir(type(owner)), *vars(owner)}):
        static = inspect.getattr_static(owner, name)
        is_made = isinstance(static, (property, functools.cached_property)) or _is_resource(static)
        if is_made and not name.startswith(("_", "with_")) and _is_resource(value := getattr(owner, name)):
            yield f"{path}{name}", value
            yield from _resources(value, f"{path}{name}.")


def _is_resource(value: Any) -> bool:
    return any(kind.__name__ in ("SyncAPIResource", "AsyncAPIResource") for kind in type(value).__mro__)


def _methods(client: Any, provider: str, *, is_async: bool) -> list[Method]:
    found = []
    for path, resource in _resources(client):
        for name, function in inspect.getmembers(type(resource), inspect.isfunction):
            source = inspect.getsource(inspect.unwrap(function))
            if "self._post(" in source and name not in NOT_CALLABLE_HERE:
                found.append(Method(provider, is_async, f"{path}.{name}", function))
    return found


def _answer(request: Any) -> Any:
    """Answer as anything: a chat, a response, a message, a batch, a run."""
    if b'"stream": true' in request.content or b'"stream":true' in request.content:
        if "/v1/messages" in str(request.url):
            return message_events()
        done = b'{"type": "x.completed", "usage": {"input_tokens": 1, "output_tokens": 1}}'
        return [b"event: message_stop\ndata: " + done + b"\n\n"]
    data = [{"object": "embedding", "index": 0, "embedding": [0.5]}]
    return {**response(), **message(), "choices": [], "data": data, "object": "list", "status": "completed"}


def _argument(name: str, annotation: str) -> Any:
    """Return something that passes for *annotation* on its way to the wire."""
    text = str(annotation)
    if name in ("model", "kms_arn"):
        return "x"
    if name in ("video", "image"):
        return b"x"
    if name in ("messages", "input", "requests", "events", "tool_outputs", "questions"):
        return [{"role": "user", "content": "x"}] if "str" not in text.partition("[")[0] else "x"
    if "FileTypes" in text or "bytes" in text:
        return b"x"
    if text.startswith(("int", "Literal[1", "Required[int")):
        return 1
    if text.startswith("float"):
        return 1.0
    if text.startswith("bool"):
        return True
    if text.startswith(("Iterable", "List", "SequenceNotStr", "Sequence")):
        return []
    if text.startswith(("Dict", "Mapping")) or "param" in text.lower():
        return {}
    return "x"


def _arguments(method: Method, **more: Any) -> tuple[list[Any], dict[str, Any]]:
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for parameter in list(inspect.signature(method.function).parameters.values())[1:]:
        if parameter.default is not parameter.empty or parameter.kind is parameter.VAR_KEYWORD:
            continue
        value = _argument(parameter.name, parameter.annotation)
        if parameter.kind is parameter.KEYWORD_ONLY:
            named[parameter.name] = value
        else:
            positional.append(value)
    return positional, {**named, **_MORE_ARGUMENTS.get(method.path, {}), **more}


def _call(client: Any, method: Method, **more: Any) -> Any:
    positional, named = _arguments(method, **more)
    return functools.reduce(getattr, method.path.split("."), client)(*positional, **named)


async def _drive(result: Any) -> None:
    """Await and read to its end whatever a method returned."""
    result = await result if inspect.isawaitable(result) else result
    if hasattr(result, "__aenter__"):
        async with result as entered:
            await _read(entered)
    elif hasattr(result, "__enter__"):
        with result as entered:
            await _read(entered)
    else:
        await _read(result)


async def _read(result: Any) -> None:
    kind = type(result).__name__
    if hasattr(result, "__anext__"):
        async for _ in result:
            pass
    elif "Stream" in kind or hasattr(result, "__next__"):
        for _ in result:
            pass


for _package in (openai, anthropic):
    _load_all(_package)
_WIRE = Wire(_answer)
_ADMIN = {"admin_api_key": "a"} if "admin_api_key" in inspect.signature(openai.OpenAI).parameters else {}
CLIENTS: dict[tuple[str, bool], Any] = {
    ("openai", False): _WIRE.openai(**_ADMIN),
    ("openai", True): _WIRE.async_openai(**_ADMIN),
    ("anthropic", False): _WIRE.anthropic(),
    ("anthropic", True): _WIRE.async_anthropic(),
}
METHODS = [
    method
    for (provider, is_async), client in CLIENTS.items()
    for method in _methods(client, provider, is_async=is_async)
]
# A stream cannot be parsed: some versions take the argument there, none can serve it.
STREAMED = [
    method
    for method in METHODS
    if "stream" in inspect.signature(method.function).parameters and not method.path.endswith(".parse")
]


def _check(meter: RecordingMeter, method: Method) -> None:
    """Assert that every POST was gated and settled once, or is one of a free path."""
    paths = [path_of(str(request.url)) for request in _WIRE.sent if request.method == "POST"]
    assert paths, f"{method} sent nothing"
    kinds = [operation_of(method.provider, path).kind for path in paths]
    assert "unknown" not in kinds, f"{method} sends to {paths}, which the table does not know"
    charged = [kind for kind in kinds if kind != "free"]
    assert [(call.entered, call.attempts) for call in meter.calls] == [(1, 1)] * len(charged)
    for call, kind in zip(meter.calls, charged, strict=True):
        assert call.provider == method.provider
        assert (call.how == "void") == (kind in ("batch", "unmetered"))


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_every_post_is_gated_and_settled_once_or_free(meter: RecordingMeter, method: Method) -> None:
    """A method that POSTs is gated and settled exactly once for each request, or its path is free."""
    _WIRE.sent.clear()
    asyncio.run(_made(method))
    _check(meter, method)


@pytest.mark.parametrize("method", STREAMED, ids=str)
def test_every_streamed_post_is_gated_and_settled_once(meter: RecordingMeter, method: Method) -> None:
    """With ``stream=True`` too."""
    _WIRE.sent.clear()
    asyncio.run(_made(method, stream=True))
    _check(meter, method)


async def _made(method: Method, **more: Any) -> None:
    await _drive(_call(CLIENTS[method.provider, method.is_async], method, **more))


def test_the_known_surfaces_are_among_them() -> None:
    """The reflection finds the surfaces that everybody uses, in both kinds."""
    found = {str(method) for method in METHODS}
    for way in ("", ".async"):
        assert {
            f"openai{way}.chat.completions.create",
            f"openai{way}.responses.create",
            f"openai{way}.embeddings.create",
            f"openai{way}.images.generate",
            f"openai{way}.audio.transcriptions.create",
            f"anthropic{way}.messages.create",
            f"anthropic{way}.beta.messages.create",
            f"anthropic{way}.messages.batches.create",
        } <= found
    assert len(STREAMED) >= 10
