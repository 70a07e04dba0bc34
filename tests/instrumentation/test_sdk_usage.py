"""Usage blocks, prompts and paths, read from plain values."""

from __future__ import annotations

import io
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from openai.types.chat import ChatCompletion
from sdk_fakes import Wire
from sdk_recording import RecordingMeter

from paygent import Paygent, PlanConfig, UsageEvent, paygent_context
from paygent.catalogue import lookup
from paygent.core.pricing import cost_nusd
from paygent.core.usage import Usage
from paygent.instrumentation.operations import operation_of
from paygent.instrumentation.requests import PICTURE_BYTES, ask_of, body_of, text_bytes
from paygent.instrumentation.usage import anthropic_tools, anthropic_usage, openai_tools, openai_usage

CHAT_USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 50,
    "total_tokens": 150,
    "prompt_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 5, "audio_tokens": 10},
    "completion_tokens_details": {"reasoning_tokens": 20, "audio_tokens": 3},
}
CHAT_READ = Usage(100, 50, 40, 5, 0, 10, 3, 20, service_tier="flex")


@pytest.mark.parametrize(
    "answer,usage",
    [
        ({"usage": CHAT_USAGE, "service_tier": "flex"}, CHAT_READ),
        ({"usage": {"prompt_tokens": 8, "total_tokens": 8}}, Usage(8)),
        ({"usage": {"total_tokens": 8}}, Usage(8)),
        ({"usage": {"input_tokens": 8, "output_tokens": 0, "input_tokens_details": None}}, Usage(8)),
        ({"usage": {"prompt_tokens": 3, "completion_tokens": None}}, Usage(3)),
        ({"usage": {"prompt_tokens": -3, "completion_tokens": -1}}, Usage(-3, -1)),
        ({"usage": {"prompt_tokens": 3.0, "completion_tokens": float("nan")}}, Usage(3)),
        ({"usage": {"type": "duration", "seconds": 1.5}}, Usage(seconds=1.5)),
        ({"usage": {"type": "duration", "seconds": "x"}}, Usage(seconds=0.0)),
        (
            {"usage": {"type": "tokens", "input_tokens": 9, "output_tokens": 2,
                       "input_token_details": {"audio_tokens": 7}}},
            Usage(9, 2, input_audio_tokens=7),
        ),
        ({"text": "hi", "duration": "2.5"}, Usage(seconds=2.5)),
        ({"created": 1, "data": [{"url": "x"}, {"url": "y"}]}, Usage(images=2)),
        ({"created": 1, "data": [], "usage": {"input_tokens": 5, "output_tokens": 10},
          "svg_usage": {"input_tokens": 1, "output_tokens": 2, "reasoning_tokens": 1}},
         Usage(6, 12, reasoning_output_tokens=1, output_image_tokens=10)),
        ({"created": 1, "data": [], "usage": {
            "input_tokens": 50, "output_tokens": 60,
            "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
            "output_tokens_details": {"text_tokens": 8, "image_tokens": 52}}},
         Usage(50, 60, input_image_tokens=40, output_image_tokens=52)),
        ({"type": "image_edit.completed", "usage": {"input_tokens": 5, "output_tokens": 6}},
         Usage(5, 6, output_image_tokens=6)),
        ({"created": 1, "data": [{"url": "x"}], "quality": "high", "size": "1024x1536"},
         Usage(images=1, service_tier="high:1024x1536")),
        ({"usage": {"prompt_tokens": 9, "completion_tokens": 2,
                    "prompt_tokens_details": {"image_tokens": 5}}},
         Usage(9, 2, input_image_tokens=5)),
        (CHAT_USAGE, CHAT_READ._replace(service_tier=None)),
        ({"usage": {"input_tokens": 1, "output_tokens": 1},
          "output": [{"type": "web_search_call", "action": {"type": "search"}},
                     {"type": "web_search_call", "action": {"type": "open_page"}},
                     {"type": "web_search_call"}]},
         Usage(1, 1, web_search_requests=2)),
        ({"usage": {"input_tokens": 1, "output_tokens": 1}, "tools": [{"type": "web_search_preview"}],
          "output": [{"type": "web_search_call"}]},
         Usage(1, 1, web_search_requests=1, web_search_preview_requests=1)),
        ({"usage": {"input_tokens": 1, "output_tokens": 1}, "tools": [{"type": "web_search"}, None],
          "output": [{"type": "web_search_call"}, {"type": "web_search_call"}],
          "tool_usage": {"web_search": {"num_requests": 1}}},
         Usage(1, 1, web_search_requests=1)),
        ({"usage": {"input_tokens": 1, "output_tokens": 1}, "output": [], "tool_usage": {
            "image_gen": {"input_tokens": 30, "output_tokens": 1000,
                          "input_tokens_details": {"image_tokens": 20}}}},
         Usage(31, 1001, input_image_tokens=20, output_image_tokens=1000)),
        ({"usage": {}}, None),
        ({"usage": None}, None),
        ({}, None),
        (None, None),
        ("text", None),
    ],
)  # fmt: skip
def test_openai_usage(answer: Any, usage: Usage | None) -> None:
    """OpenAI's blocks are read as they stand: details are parts of the totals, absent is not zero."""
    assert openai_usage(answer) == usage


def test_openai_usage_of_a_model() -> None:
    """A parsed model reads as its JSON does, also fields that it does not declare."""
    answer = {"id": "x", "choices": [], "usage": CHAT_USAGE, "service_tier": "flex"}
    assert openai_usage(ChatCompletion.construct(**answer)) == CHAT_READ
    assert openai_usage(
        SimpleNamespace(usage=SimpleNamespace(prompt_tokens=1, completion_tokens=2))
    ) == Usage(1, 2)


@pytest.mark.parametrize(
    "answer,usage",
    [
        ({"usage": {"input_tokens": 11, "output_tokens": 7}}, Usage(11, 7)),
        (
            {"usage": {
                "input_tokens": 11, "output_tokens": 7, "cache_read_input_tokens": 1000,
                "cache_creation_input_tokens": 100,
                "cache_creation": {"ephemeral_5m_input_tokens": 60, "ephemeral_1h_input_tokens": 40},
                "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1},
                "output_tokens_details": {"thinking_tokens": 3}, "service_tier": "standard",
            }},
            Usage(1111, 7, 1000, 100, 40, reasoning_output_tokens=3, web_search_requests=2,
                  service_tier="standard"),
        ),
        (
            {"usage": {"input_tokens": 1, "output_tokens": 1, "cache_creation_input_tokens": None,
                       "cache_creation": {"ephemeral_5m_input_tokens": 6, "ephemeral_1h_input_tokens": 4}}},
            Usage(11, 1, 0, 10, 4),
        ),
        ({"usage": {"input_tokens": 1, "output_tokens": 1, "service_tier": "batch"}},
         Usage(1, 1, service_tier="batch", batch=True)),
        ({"usage": {"input_tokens": 1, "output_tokens": 1, "inference_geo": "us"}},
         Usage(1, 1, inference_geo="us")),
        ({"usage": {"input_tokens": 1, "output_tokens": 1, "inference_geo": "global"}}, Usage(1, 1)),
        ({"usage": {"input_tokens": 1, "output_tokens": 1, "inference_geo": "not_available"}}, Usage(1, 1)),
        ({"usage": {"input_tokens": 1, "output_tokens": 1, "speed": "fast"}},
         Usage(1, 1, service_tier="fast")),
        ({"usage": {"input_tokens": 5, "output_tokens": 5, "iterations": [
            {"type": "message", "input_tokens": 5, "output_tokens": 5},
            {"type": "compaction", "input_tokens": 100, "output_tokens": 10},
        ]}}, Usage(105, 15)),
        ({"input_tokens": 2, "output_tokens": 3}, Usage(2, 3)),
        ({"usage": {"output_tokens": 3}}, Usage(0, 3)),
        ({"usage": {}}, None),
        ({"usage": None}, None),
        ({}, None),
        (None, None),
    ],
)  # fmt: skip
def test_anthropic_usage(answer: Any, usage: Usage | None) -> None:
    """Anthropic leaves cached tokens out of its input tokens: they are added; the rest are parts."""
    assert anthropic_usage(answer) == usage


@pytest.mark.parametrize(
    "answer,names",
    [
        (
            {"choices": [{"message": {"tool_calls": [
                {"type": "function", "function": {"name": "find"}},
                {"type": "custom", "custom": {"name": "run"}},
                {"type": "function", "function": {"name": "find"}},
            ]}}]},
            ("find", "run", "find"),
        ),
        ({"choices": [{"message": {"function_call": {"name": "old"}}}]}, ("old",)),
        ({"choices": [{"message": None}, {}]}, ()),
        (
            {"output": [
                {"type": "function_call", "name": "find"}, {"type": "web_search_call"},
                {"type": "mcp_call", "name": "remote"}, {"type": "message"}, {"type": "reasoning"},
                {"type": "function_call_output"}, {"type": "code_interpreter_call"},
            ]},
            ("find", "web_search", "remote", "code_interpreter"),
        ),
        ({}, ()),
        (None, ()),
    ],
)  # fmt: skip
def test_openai_tools(answer: Any, names: tuple[str, ...]) -> None:
    """Every call of a tool is named, in order: functions by name, hosted tools by kind."""
    assert openai_tools(answer) == names


@pytest.mark.parametrize(
    "answer,names",
    [
        (
            {"content": [
                {"type": "text", "text": "x"}, {"type": "tool_use", "name": "find"},
                {"type": "server_tool_use", "name": "web_search"}, {"type": "mcp_tool_use", "name": "remote"},
                {"type": "web_search_tool_result"},
            ]},
            ("find", "web_search", "remote"),
        ),
        ({"content": None}, ()),
        (None, ()),
    ],
)  # fmt: skip
def test_anthropic_tools(answer: Any, names: tuple[str, ...]) -> None:
    """Every block that uses a tool is named, in order; its result is not."""
    assert anthropic_tools(answer) == names


# --- prompts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prompt,size",
    [
        ("hello", 5),
        ("Grüße", 7),
        ("\ud800", 1),
        (None, 0),
        ([{"role": "user", "content": "hello"}], 9),
        ([{"content": [{"type": "text", "text": "hello"}]}], 9),
        ([{"content": [{"type": "image_url", "image_url": {"url": "data:" + "x" * 10**6}}]}], PICTURE_BYTES),
        ([{"type": "image", "source": {"type": "base64", "data": "x" * 10**6}}], PICTURE_BYTES),
        ({"type": "input_audio", "input_audio": {"data": "x" * 10**5}}, PICTURE_BYTES + 1000),
        ({"type": "document", "source": {"type": "base64", "data": "x" * 10**5}}, PICTURE_BYTES + 5000),
        ({"type": "document", "source": {"type": "text", "data": "hello"}}, 5),
    ],
)
def test_text_bytes(prompt: Any, size: int) -> None:
    """A prompt is as long as its text; pictures, sound and documents count as the tokens they cost."""
    assert text_bytes(prompt) == size


def test_iterators_in_a_prompt_are_not_consumed() -> None:
    """Messages that can be read only once are left for the SDK."""
    messages = iter([{"role": "user", "content": "hello"}])
    ask_of(operation_of("openai", "/chat/completions"), {"model": "m", "messages": messages})
    assert next(messages)["content"] == "hello"


@pytest.mark.parametrize(
    "body,cap",
    [
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 5, "max_tokens": 9, "n": 3}, 15),
        ({"max_output_tokens": 5}, 5),
        ({"max_tokens": None}, None),
        ({}, None),
    ],
)
def test_output_cap(body: dict[str, Any], cap: int | None) -> None:
    """The request's own cap on output, for all its choices; none if it gives none."""
    assert ask_of(operation_of("openai", "/chat/completions"), body).max_output_tokens == cap


def test_units_of_requests_without_tokens() -> None:
    """Pictures are counted, speech has characters, uploaded sound about its seconds, videos theirs."""
    sound = SimpleNamespace(files=[("file", ("x.mp3", io.BytesIO(b"x" * 160_000)))])
    cases = {
        "/images/generations": (
            {"prompt": "x", "n": 2, "quality": "hd", "size": "1024x1792"},
            None,
            Usage(images=2, service_tier="hd:1024x1792"),
        ),
        "/images/variations": ({}, None, Usage(images=1, service_tier="auto:auto")),
        "/audio/speech": ({"input": "Grüße"}, None, Usage(characters=5)),
        "/audio/transcriptions": ({}, sound, Usage(seconds=10.0)),
        "/videos": ({"prompt": "x", "seconds": "8"}, None, Usage(seconds=8.0)),
    }
    for path, (body, options, units) in cases.items():
        assert ask_of(operation_of("openai", path), body, options).units == units


HD: dict[str, Any] = {"model": "dall-e-3", "prompt": "a cat", "quality": "hd", "size": "1024x1792"}
PICTURE = {"created": 1, "data": [{"url": "https://example.com/1.png"}]}


def _drawn(way: str, answer: dict[str, Any]) -> None:
    """Ask for one picture in HD, in one of the shapes in which the SDK hands out answers."""
    images = Wire(lambda _: answer).openai().images
    if way == "parsed":
        images.generate(**HD)
    elif way == "raw":
        images.with_raw_response.generate(**HD)
    else:
        with images.with_streaming_response.generate(**HD) as response:
            response.read()


@pytest.mark.parametrize("way", ["parsed", "raw", "streaming"])
def test_a_large_picture_in_high_quality_costs_what_it_was_asked_as(meter: RecordingMeter, way: str) -> None:
    """The answer shows how many pictures there are, the request of which kind: 0.12 dollars, not 0.04."""
    _drawn(way, PICTURE)
    rates = lookup("dall-e-3", "openai")
    assert rates is not None
    assert (meter.only.how, cost_nusd(meter.only.usage, rates)) == ("exact", 120_000_000)
    assert cost_nusd(meter.only.units, rates) == 120_000_000


@pytest.mark.parametrize("way", ["parsed", "raw", "streaming"])
def test_a_picture_billed_by_tokens_has_no_kind(meter: RecordingMeter, way: str) -> None:
    """Where the answer tells the tokens, they alone are priced, whatever was asked for."""
    _drawn(way, {**PICTURE, "usage": {"input_tokens": 5, "output_tokens": 60, "total_tokens": 65}})
    assert meter.only.usage == Usage(5, 60, output_image_tokens=60)


@pytest.mark.parametrize("model", ["gpt-image-1", "gpt-image-1.5", "gpt-image-2", "dall-e-2", "dall-e-3"])
def test_a_picture_can_be_reserved_before_its_tokens_are_known(model: str) -> None:
    """What is known of a request for a picture has a price at every model that draws."""
    units = ask_of(operation_of("openai", "/images/generations"), {"model": model, "prompt": "x"}).units
    rates = lookup(model, "openai")
    assert rates is not None
    assert units is not None
    assert cost_nusd(units, rates) >= 20_000_000


# --- as the engine bills them -------------------------------------------------------------------------------


@pytest.fixture
def billed() -> Iterator[list[UsageEvent]]:
    """Yield the events of ``alice``, whose plan has a finite cap, as a real engine makes them."""
    pg = Paygent.init(ledger="memory://")
    pg.configure_plan("default", PlanConfig(max_spend_per_period=10.0))
    events: list[UsageEvent] = []
    pg.on_usage(lambda *args: events.append(args[0]))
    with paygent_context("alice"):
        yield events
    pg.shutdown()


def test_a_picture_is_billed_by_its_kind(billed: list[UsageEvent]) -> None:
    """A large picture of DALL-E 3 in HD is 0.12 dollars, as its price list says, and no estimate."""
    _drawn("raw", PICTURE)
    assert [(event.cost_total, event.estimated) for event in billed] == [(0.12, False)]


def test_a_picture_billed_by_tokens_is_admitted_under_a_cap(billed: list[UsageEvent]) -> None:
    """Its tokens are not known before it is drawn: a price per picture stands in for them until then."""
    used = {"input_tokens": 30, "output_tokens": 4160, "input_tokens_details": {"text_tokens": 30}}
    Wire(lambda _: {**PICTURE, "usage": used}).openai().images.generate(model="gpt-image-1.5", prompt="a cat")
    assert [(event.cost_total, event.estimated) for event in billed] == [(0.13327, False)]


@pytest.mark.parametrize("model, is_estimate", [("gpt-4o-mini-tts", True), ("tts-1", False)])
def test_speech_is_marked_where_its_price_is_our_estimate(
    billed: list[UsageEvent], model: str, is_estimate: bool
) -> None:
    """OpenAI bills this model's speech by tokens that its answer does not tell; others by characters."""
    Wire(lambda _: b"sound").openai().audio.speech.create(model=model, voice="alloy", input="x" * 100)
    assert [event.estimated for event in billed] == [is_estimate]


@pytest.mark.parametrize("is_raw", [False, True])
def test_a_transcription_without_usage_is_an_estimate(billed: list[UsageEvent], is_raw: bool) -> None:
    """The length of sound is guessed from its bytes where the answer does not tell it, raw or not."""
    sound = Wire(lambda _: {"text": "Hello"}).openai().audio.transcriptions
    create = sound.with_raw_response.create if is_raw else sound.create
    create(model="whisper-1", file=("x.mp3", b"x" * 160_000))
    assert [event.estimated for event in billed] == [True]


def test_extra_body_wins() -> None:
    """``extra_body`` is merged into the body as the SDK merges it."""
    options = SimpleNamespace(json_data={"model": "a", "n": 1}, extra_json={"model": "b"})
    assert body_of(options) == {"model": "b", "n": 1}


# --- paths --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "provider,url,name,kind",
    [
        ("openai", "/chat/completions", "chat", "call"),
        ("openai", "/responses?beta=true", "responses", "call"),
        ("openai", "https://api.openai.com/v1/responses", "responses", "call"),
        ("openai", "/openai/deployments/d/chat/completions?api-version=1", "chat", "call"),
        ("openai", "chat/completions/", "chat", "call"),
        ("openai", "/chat/completions/chatcmpl-1", "free", "free"),
        ("openai", "/threads/t/runs", "run", "call"),
        ("openai", "/threads/t/messages", "free", "free"),
        ("openai", "/realtime/calls/c/accept", "realtime", "unmetered"),
        ("openai", "/realtime/calls/c/hangup", "free", "free"),
        ("openai", "/moderations", "free", "free"),
        ("openai", "/rerank", "unknown", "unknown"),
        ("anthropic", "/v1/messages?beta=true", "messages", "call"),
        ("anthropic", "/v1/messages/count_tokens", "free", "free"),
        ("anthropic", "/v1/messages/batches", "batch", "batch"),
        ("anthropic", "/v1/messages/batches/b/cancel", "free", "free"),
        ("anthropic", "/model/anthropic.claude-3/invoke", "messages", "call"),
        ("anthropic", "/model/anthropic.claude-3/invoke-with-response-stream", "messages", "call"),
        ("anthropic", "/projects/p/publishers/anthropic/models/c@1:rawPredict", "messages", "call"),
        ("anthropic", "/projects/p/locations/l/publishers/anthropic/models/count-tokens:rawPredict", "free",
         "free"),
    ],
)  # fmt: skip
def test_operation_of_a_path(provider: str, url: str, name: str, kind: str) -> None:
    """A path is known without its query, its origin and the prefixes of Azure, Bedrock and Vertex."""
    operation = operation_of(provider, url)
    assert (operation.name, operation.kind, operation.provider) == (name, kind, provider)
