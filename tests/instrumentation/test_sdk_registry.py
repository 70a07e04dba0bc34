"""The registry: a ready result of any shape settles a call."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from sdk_fakes import MESSAGES, Wire, chat, chat_events, message, message_events, response
from sdk_recording import RecordedCall, RecordingMeter

from paygent.context import Payer
from paygent.core.usage import Usage
from paygent.instrumentation.registry import AnthropicProvider, ProviderRegistry

CACHED = {"input_tokens": 11, "output_tokens": 7, "cache_read_input_tokens": 100}


def _call() -> RecordedCall:
    return RecordedCall(RecordingMeter(), Payer("alice"), ("openai", "wrap", "m", 0, None, None))


def _settled(result: Any, provider: str | None = None) -> RecordedCall:
    call = _call()
    ProviderRegistry().receive(call, result, provider)
    return call


def test_names_and_get() -> None:
    """Both providers are there, in order, and can be had by name."""
    registry = ProviderRegistry()
    assert registry.names == ["openai", "anthropic"]
    assert registry.get("anthropic").name == "anthropic"


def test_unknown_name_is_refused() -> None:
    """An unknown name is a ``ValueError`` that says which there are."""
    with pytest.raises(ValueError, match=r"'mistral'.*openai, anthropic"):
        ProviderRegistry().get("mistral")


def test_own_provider_is_asked() -> None:
    """A provider of one's own is tried like the others."""

    class Mine:
        name = "mine"

        def claims(self, result: Any) -> bool:
            return result == "mine"

        def receive(self, call: Any, result: Any) -> None:
            call.finish(Usage(1, 2))

    registry, call = ProviderRegistry([AnthropicProvider()]), _call()
    registry.register(Mine())
    registry.receive(call, "mine")
    assert (registry.names, call.usage) == (["anthropic", "mine"], Usage(1, 2))


@pytest.mark.parametrize("provider", [None, "openai"])
def test_openai_results(provider: str | None) -> None:
    """Models and dictionaries of OpenAI settle by their usage."""
    model = Wire(lambda _: chat()).openai().chat.completions.create(model="m", messages=MESSAGES)
    for result in (model, chat(), model.model_dump()):
        assert (_settled(result, provider).how, _settled(result, provider).usage) == ("exact", Usage(11, 7))
    assert _settled(response(), provider).usage.cache_read_input_tokens == 4


@pytest.mark.parametrize("provider", [None, "anthropic"])
def test_anthropic_results(provider: str | None) -> None:
    """Models and dictionaries of Anthropic settle by their usage, the cache added to the input."""
    wire = Wire(lambda _: message(usage=CACHED))
    model = wire.anthropic().messages.create(model="m", max_tokens=9, messages=MESSAGES)
    for result in (model, message(usage=CACHED)):
        assert _settled(result, provider).usage == Usage(111, 7, cache_read_input_tokens=100)


def test_raw_and_unread_results() -> None:
    """Raw wrappers, read and unread, settle by their body."""
    completions = Wire(lambda _: chat()).openai().chat.completions
    assert _settled(completions.with_raw_response.create(model="m", messages=MESSAGES)).usage == Usage(11, 7)
    with completions.with_streaming_response.create(model="m", messages=MESSAGES) as raw:
        call = _settled(raw)
        assert (call.deferred, call.how) == (True, None)
        raw.parse()
    assert call.usage == Usage(11, 7)


def test_streams_are_taken_over() -> None:
    """A stream defers the call and settles it when it ends, sync and async, of either SDK."""
    client = Wire(lambda _: chat_events(usage=True)).openai()
    stream = client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
    call = _settled(stream)
    assert (call.deferred, call.how) == (True, None)
    assert len(list(stream)) == 4
    assert call.usage == Usage(11, 7)

    async def run() -> RecordedCall:
        client = Wire(lambda _: message_events()).async_anthropic()
        stream = await client.messages.create(model="m", max_tokens=9, messages=MESSAGES, stream=True)
        call = _settled(stream)
        async for _ in stream:
            pass
        return call

    assert asyncio.run(run()).usage == Usage(111, 7, cache_read_input_tokens=100)


def test_stream_begun_before_is_read_along_from_there() -> None:
    """A stream of which the caller has read some already is counted from there."""
    stream = (
        Wire(lambda _: chat_events(usage=True))
        .openai()
        .chat.completions.create(model="m", messages=MESSAGES, stream=True)
    )
    next(stream)
    call = _settled(stream)
    assert len(list(stream)) == 3
    assert call.usage == Usage(11, 7)


def test_stream_helper_is_taken_over() -> None:
    """The stream that an entered helper reads from is taken over."""
    client = Wire(lambda _: message_events()).anthropic()
    with client.messages.stream(model="m", max_tokens=9, messages=MESSAGES) as stream:
        call = _settled(stream)
        assert stream.get_final_text() == "Hello you"
    assert (call.how, call.attempts) == ("exact", 1)


@pytest.mark.parametrize("result", [None, "text", 3, object(), SimpleNamespace(a=1), {}, [], {"usage": None}])
def test_unknown_results_are_estimated(result: Any) -> None:
    """What nobody claims settles by estimate: unknown never becomes zero."""
    call = _settled(result)
    assert (call.how, call.output_bytes) == ("estimated", 0)
