"""The loopback LLM server and the stub transport, called by the installed OpenAI and Anthropic SDKs."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pydantic
import pytest

from paygent.testing.llm_server import Controls, FakeProvider, LLMServer
from paygent.testing.llm_server._words import count_tokens
from paygent.testing.transport import http_flavour, stub_http_client

HELLO = [{"role": "user", "content": "Hello there, friend!"}]  # five tokens
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
}
CHAT_TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}
RESPONSE_TOOL = {"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": False}
MESSAGE_TOOL = {"name": "get_weather", "input_schema": WEATHER}
SEARCH_TOOL = {"type": "web_search_20250305", "name": "web_search"}
WAV = ("voice.wav", b"\0" * 40_000, "audio/wav")  # three seconds, rounded up
PNG = ("picture.png", b"\x89PNG", "image/png")


class Answer(pydantic.BaseModel):
    """What a structured answer is parsed into."""

    word: str
    count: int
    tags: list[str]


# Surfaces that an SDK calls deprecated still answer, and still bill.
deprecated_too = pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")


@pytest.fixture(scope="module")
def server() -> Iterator[LLMServer]:
    """One server for the module; each test counts from zero."""
    with LLMServer() as running:
        yield running


@pytest.fixture(autouse=True)
def _forget(server):
    server.reset()


class Shell:
    """SDK clients on one of the two shells: the HTTP server, or the stub inside the process."""

    def __init__(self, kind: str, server: LLMServer) -> None:
        self.kind = kind
        self.server = server
        self.clients: list[Any] = []

    def openai(self, client_type: Any = openai.OpenAI) -> Any:
        return self._made(client_type, "openai")

    def anthropic(self, client_type: Any = anthropic.Anthropic) -> Any:
        return self._made(client_type, "anthropic")

    def _made(self, client_type: Any, sdk: str) -> Any:
        self.clients.append(client_type(api_key="any", max_retries=0, **self._options(sdk, client_type)))
        return self.clients[-1]

    def _options(self, sdk: str, client_type: Any) -> dict[str, Any]:
        if self.kind == "server":
            return {"base_url": getattr(self.server, f"{sdk}_base_url")}
        is_async = client_type.__name__.startswith("Async")
        provider = self.server.provider
        return {"http_client": stub_http_client(sdk, is_async, provider.answer)}


@pytest.fixture(params=["server", "stub"])
async def shell(request, server):
    made = Shell(request.param, server)
    yield made
    for client in made.clients:
        await settled(client.close())


async def settled(value: Any) -> Any:
    """Await *value* where the client was an asynchronous one."""
    return await value if inspect.isawaitable(value) else value


async def is_valid(raw: Any) -> bool:
    """Whether the body fits the SDK's model when it is validated, which the SDK itself does not do."""
    model = await settled(raw.parse())
    type(model).model_validate(raw.http_response.json())
    return True


OPENAI_SURFACES = {
    "chat": lambda c: c.chat.completions.with_raw_response.create(model="gpt-4o", messages=HELLO, n=2),
    "chat tools": lambda c: c.chat.completions.with_raw_response.create(
        model="gpt-4o", messages=HELLO, tools=[CHAT_TOOL], tool_choice="required"
    ),
    "completions": lambda c: c.completions.with_raw_response.create(model="babbage-002", prompt="Hi"),
    "responses": lambda c: c.responses.with_raw_response.create(model="gpt-4o", input="Hi"),
    "responses tools": lambda c: c.responses.with_raw_response.create(
        model="gpt-4o", input="please search: web search", tools=[RESPONSE_TOOL, {"type": "web_search"}]
    ),
    "responses cut": lambda c: c.responses.with_raw_response.create(
        model="gpt-4o", input="Hi", max_output_tokens=3
    ),
    "input tokens": lambda c: c.responses.input_tokens.with_raw_response.count(model="gpt-4o", input="Hi"),
    "compact": lambda c: c.responses.with_raw_response.compact(model="gpt-4o", input="Hi"),
    "embeddings": lambda c: c.embeddings.with_raw_response.create(
        model="text-embedding-3-small", input=["a", "b"], encoding_format="float"
    ),
    "images": lambda c: c.images.with_raw_response.generate(model="gpt-image-1", prompt="a cat"),
    "image edit": lambda c: c.images.with_raw_response.edit(model="gpt-image-1", image=PNG, prompt="a cat"),
    "image variation": lambda c: c.images.with_raw_response.create_variation(image=PNG),
    "transcription": lambda c: c.audio.transcriptions.with_raw_response.create(
        model="gpt-4o-transcribe", file=WAV
    ),
    "transcription verbose": lambda c: c.audio.transcriptions.with_raw_response.create(
        model="whisper-1", file=WAV, response_format="verbose_json"
    ),
    "translation": lambda c: c.audio.translations.with_raw_response.create(model="whisper-1", file=WAV),
    "moderation": lambda c: c.moderations.with_raw_response.create(input="Hi"),
    "file": lambda c: c.files.with_raw_response.create(file=("a.txt", b"text"), purpose="user_data"),
    "batch": lambda c: c.batches.with_raw_response.create(
        input_file_id="file-none", endpoint="/v1/chat/completions", completion_window="24h"
    ),
    "thread": lambda c: c.beta.threads.with_raw_response.create(),
    "run": lambda c: c.beta.threads.with_raw_response.create_and_run(assistant_id="asst_1"),
}

ANTHROPIC_SURFACES = {
    "messages": lambda c: c.messages.with_raw_response.create(
        model="claude-sonnet-5-5", max_tokens=100, messages=HELLO
    ),
    "messages tools": lambda c: c.messages.with_raw_response.create(
        model="claude-sonnet-5-5",
        max_tokens=100,
        messages=HELLO,
        tools=[MESSAGE_TOOL],
        tool_choice={"type": "any"},
    ),
    "messages search": lambda c: c.messages.with_raw_response.create(
        model="claude-sonnet-5-5",
        max_tokens=100,
        messages=HELLO,
        tools=[SEARCH_TOOL],
        tool_choice={"type": "tool", "name": "web_search"},
    ),
    "messages thinking": lambda c: c.messages.with_raw_response.create(
        model="claude-sonnet-5-5",
        max_tokens=2000,
        messages=HELLO,
        thinking={"type": "enabled", "budget_tokens": 1024},
    ),
    "beta messages": lambda c: c.beta.messages.with_raw_response.create(
        model="claude-sonnet-5-5", max_tokens=100, messages=HELLO
    ),
    "count tokens": lambda c: c.messages.with_raw_response.count_tokens(
        model="claude-sonnet-5-5", messages=HELLO
    ),
    "batch": lambda c: c.messages.batches.with_raw_response.create(
        requests=[{"custom_id": "a", "params": {"model": "m", "max_tokens": 9, "messages": HELLO}}]
    ),
}


class TestShapes:
    @deprecated_too
    @pytest.mark.parametrize("client_type", [openai.OpenAI, openai.AsyncOpenAI])
    @pytest.mark.parametrize("surface", OPENAI_SURFACES)
    async def test_openai_bodies_fit_the_models_of_the_sdk(self, shell, client_type, surface):
        """Each OpenAI surface answers with every field its SDK model requires."""
        assert await is_valid(await settled(OPENAI_SURFACES[surface](shell.openai(client_type))))

    @pytest.mark.parametrize("client_type", [anthropic.Anthropic, anthropic.AsyncAnthropic])
    @pytest.mark.parametrize("surface", ANTHROPIC_SURFACES)
    async def test_anthropic_bodies_fit_the_models_of_the_sdk(self, shell, client_type, surface):
        """Each Anthropic surface answers with every field its SDK model requires."""
        assert await is_valid(await settled(ANTHROPIC_SURFACES[surface](shell.anthropic(client_type))))

    def test_speech_is_sound(self, shell):
        """Speech answers bytes, not JSON."""
        sound = shell.openai().audio.speech.create(model="tts-1", voice="alloy", input="Hello you")
        assert sound.content.startswith(b"\xff\xfb")

    def test_dall_e_reports_no_usage(self, shell):
        """Images of DALL-E carry links and no usage block."""
        images = shell.openai().images.generate(model="dall-e-3", prompt="a cat", n=2)
        assert len(images.data) == 2
        assert images.usage is None

    def test_gpt_image_reports_tokens(self, shell):
        """Images of GPT Image bill text tokens in and a fixed number of tokens per image out."""
        images = shell.openai().images.generate(model="gpt-image-1", prompt="a cat", n=2, quality="low")
        assert (images.usage.input_tokens, images.usage.output_tokens) == (2, 544)

    def test_whisper_bills_its_duration(self, shell):
        """Whisper's usage is a duration, three seconds for this file."""
        heard = shell.openai().audio.transcriptions.create(model="whisper-1", file=WAV)
        assert (heard.usage.type, heard.usage.seconds) == ("duration", 3)

    def test_transcription_bills_tokens(self, shell):
        """The newer transcription models bill audio tokens in."""
        heard = shell.openai().audio.transcriptions.create(model="gpt-4o-transcribe", file=WAV)
        assert (heard.usage.type, heard.usage.input_token_details.audio_tokens) == ("tokens", 30)

    def test_embeddings_are_decoded_by_the_sdk(self, shell):
        """The SDK's default encoding decodes to one unit vector of the asked size per input."""
        found = shell.openai().embeddings.create(
            model="text-embedding-3-small", input=["a", "b"], dimensions=8
        )
        assert [sum(each.embedding) for each in found.data] == [1.0, 1.0]

    def test_azure_takes_the_model_from_the_deployment(self, server):
        """An Azure client is answered at its deployment's path."""
        client = openai.AzureOpenAI(azure_endpoint=server.url, api_key="any", api_version="2024-10-21")
        answer = client.chat.completions.create(model="dep", messages=HELLO)
        assert server.requests[-1].path == "/openai/deployments/dep/chat/completions"
        assert answer.choices[0].finish_reason == "stop"

    def test_any_other_post_is_answered(self, shell):
        """A path nobody knows gets an object with an id, and usage where a header names it."""
        answer = shell.openai().post(
            "/videos/edits", cast_to=object, body={}, options={"headers": {"x-llm-usage": "7,9"}}
        )
        assert answer["id"]
        assert (answer["usage"]["input_tokens"], answer["usage"]["output_tokens"]) == (7, 9)

    def test_an_unknown_file_is_missing(self, shell):
        """A GET of an id that was never made is a 404."""
        with pytest.raises(openai.NotFoundError):
            shell.openai().files.retrieve("file-none")


class TestTokens:
    def test_counts_what_was_read_and_written(self, shell):
        """Usage is the words and marks of the prompt and of the text."""
        answer = shell.openai().chat.completions.create(model="gpt-4o", messages=HELLO)
        assert answer.usage.prompt_tokens == 5
        assert answer.usage.completion_tokens == count_tokens(answer.choices[0].message.content)

    def test_the_same_request_gets_the_same_text(self, shell):
        """Text is deterministic."""
        ask = shell.openai().chat.completions.create
        texts = {ask(model="gpt-4o", messages=HELLO).choices[0].message.content for _ in range(2)}
        assert len(texts) == 1

    @pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
    def test_chat_stops_at_the_maximum(self, shell, name):
        """A maximum below the text's length cuts it, and the finish reason says so."""
        answer = shell.openai().chat.completions.create(model="gpt-4o", messages=HELLO, **{name: 4})
        assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (4, "length")

    def test_messages_stop_at_the_maximum(self, shell):
        """Anthropic's stop reason says that the maximum ended the text."""
        answer = shell.anthropic().messages.create(model="claude-sonnet-5-5", max_tokens=4, messages=HELLO)
        assert (answer.usage.output_tokens, answer.stop_reason) == (4, "max_tokens")

    def test_several_choices_are_all_billed(self, shell):
        """With n=3, three texts are written and billed."""
        answer = shell.openai().chat.completions.create(model="gpt-4o", messages=HELLO, n=3, max_tokens=4)
        assert (len(answer.choices), answer.usage.completion_tokens) == (3, 12)

    def test_openai_cached_tokens_are_inside_the_prompt(self, shell):
        """Cached tokens do not change OpenAI's prompt tokens."""
        headers = {"x-llm-cached-tokens": "3"}
        answer = shell.openai().chat.completions.create(model="gpt-4o", messages=HELLO, extra_headers=headers)
        assert (answer.usage.prompt_tokens, answer.usage.prompt_tokens_details.cached_tokens) == (5, 3)

    def test_anthropic_cached_tokens_are_outside_the_input(self, shell):
        """Cache reads and writes are taken out of Anthropic's input tokens."""
        headers = {"x-llm-cached-tokens": "3", "x-llm-cache-write-tokens": "1"}
        usage = (
            shell.anthropic()
            .messages.create(model="claude-sonnet-5-5", max_tokens=9, messages=HELLO, extra_headers=headers)
            .usage
        )
        counts = (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens)
        assert counts == (1, 3, 1)

    def test_count_tokens_agrees_with_the_bill(self, shell):
        """The free counter says what the message then costs."""
        client = shell.anthropic()
        counted = client.messages.count_tokens(model="claude-sonnet-5-5", messages=HELLO).input_tokens
        billed = client.messages.create(model="claude-sonnet-5-5", max_tokens=9, messages=HELLO).usage
        assert counted == billed.input_tokens

    def test_a_search_is_billed_apart(self, shell):
        """A web search shows in Anthropic's server tool usage."""
        answer = shell.anthropic().messages.create(
            model="claude-sonnet-5-5",
            max_tokens=99,
            messages=[{"role": "user", "content": "Do a web search, please"}],
            tools=[SEARCH_TOOL],
        )
        assert answer.usage.server_tool_use.web_search_requests == 1

    def test_the_usage_block_can_be_given(self, shell):
        """A raw usage block in a header is answered as it is, and is what counts as generated."""
        raw = {"prompt_tokens": 1000, "completion_tokens": 7, "total_tokens": 1007, "new_field": 1}
        headers = {"x-llm-usage-json": json.dumps(raw)}
        answer = shell.openai().chat.completions.create(model="gpt-4o", messages=HELLO, extra_headers=headers)
        assert answer.usage.to_dict() == raw
        assert shell.server.generated["gpt-4o"][1:] == (1000, 7)

    def test_usage_can_be_left_out(self, shell):
        """A null usage block stands for servers that report none."""
        headers = {"x-llm-usage-json": "null"}
        answer = shell.openai().chat.completions.create(model="gpt-4o", messages=HELLO, extra_headers=headers)
        assert answer.usage is None

    def test_totals_are_kept_per_model(self, shell):
        """The totals are the sum of the usage blocks, by model."""
        client = shell.openai()
        usages = [
            client.chat.completions.create(model=model, messages=HELLO).usage for model in ("a", "b", "a")
        ]
        totals = shell.server.generated
        assert totals["a"] == (2, 10, usages[0].completion_tokens + usages[2].completion_tokens)
        assert totals["b"].requests == 1


class TestStructure:
    def test_chat_parse(self, shell):
        """A chat answer fits the asked JSON schema, so that parse() returns the model."""
        answer = shell.openai().chat.completions.parse(model="gpt-4o", messages=HELLO, response_format=Answer)
        assert isinstance(answer.choices[0].message.parsed, Answer)

    def test_responses_parse(self, shell):
        """A response fits the asked JSON schema."""
        answer = shell.openai().responses.parse(model="gpt-4o", input="Hi", text_format=Answer)
        assert isinstance(answer.output_parsed, Answer)

    def test_messages_parse(self, shell):
        """A message fits the asked JSON schema."""
        answer = shell.anthropic().messages.parse(
            model="claude-sonnet-5-5", max_tokens=99, messages=HELLO, output_format=Answer
        )
        assert isinstance(answer.parsed_output, Answer)

    def test_a_tool_is_called_when_it_is_named(self, shell):
        """A tool that the last user message names is called with arguments that fit its schema."""
        asked = [{"role": "user", "content": "Please use get_weather."}]
        answer = shell.openai().chat.completions.create(model="gpt-4o", messages=asked, tools=[CHAT_TOOL])
        call = answer.choices[0].message.tool_calls[0]
        assert answer.choices[0].finish_reason == "tool_calls"
        assert json.loads(call.function.arguments) == {"city": "a good start", "days": 1}

    def test_a_tools_result_is_answered_with_text(self, shell):
        """After a tool's result the assistant talks, so that agent loops end."""
        asked = [
            {"role": "user", "content": "Please use get_weather."},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "t", "name": "get_weather", "input": {}}],
            },
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "t", "content": "get_weather: sun"}],
            },
        ]
        answer = shell.anthropic().messages.create(
            model="claude-sonnet-5-5", max_tokens=99, messages=asked, tools=[MESSAGE_TOOL]
        )
        assert answer.stop_reason == "end_turn"


class TestStreams:
    def test_chat_reports_usage_only_when_asked(self, shell):
        """The last chunk has no choices and the usage, with include_usage and not without."""
        ask = shell.openai().chat.completions.create
        plain = list(ask(model="gpt-4o", messages=HELLO, stream=True))
        options = {"include_usage": True}
        full = list(ask(model="gpt-4o", messages=HELLO, stream=True, stream_options=options))
        assert all(chunk.choices for chunk in plain)
        assert (full[-1].choices, full[-1].usage.prompt_tokens, len(full)) == ([], 5, len(plain) + 1)

    async def test_chat_streams_to_async_clients(self, shell):
        """An asynchronous client reads the same text as a plain answer has."""
        client = shell.openai(openai.AsyncOpenAI)
        whole = await client.chat.completions.create(model="gpt-4o", messages=HELLO)
        stream = await client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        assert text == whole.choices[0].message.content

    def test_the_number_of_chunks_can_be_set(self, shell):
        """A header sets how many text chunks a stream has."""
        headers = {"x-llm-chunks": "3"}
        stream = shell.openai().chat.completions.create(
            model="gpt-4o", messages=HELLO, stream=True, extra_headers=headers
        )
        assert sum(bool(chunk.choices[0].delta.content) for chunk in stream) == 3

    def test_chat_helper(self, shell):
        """The chat stream helper builds the whole completion, tool calls included."""
        with shell.openai().chat.completions.stream(
            model="gpt-4o", messages=HELLO, tools=[CHAT_TOOL], tool_choice="required"
        ) as stream:
            final = stream.get_final_completion()
        assert json.loads(final.choices[0].message.tool_calls[0].function.arguments)["days"] == 1

    @pytest.mark.parametrize(
        "options",
        [{}, {"tools": [RESPONSE_TOOL], "tool_choice": "required"}, {"tools": [{"type": "web_search"}]}],
        ids=["text", "tool", "search"],
    )
    def test_responses_helper(self, shell, options):
        """The responses helper accepts the order of the events and ends with the usage."""
        with shell.openai().responses.stream(model="gpt-4o", input="a web search", **options) as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_response()
        assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
        assert final.usage.input_tokens == 3 + (0 if not options else final.usage.input_tokens - 3)

    async def test_responses_helper_async(self, shell):
        """The asynchronous responses helper reads the whole text."""
        async with shell.openai(openai.AsyncOpenAI).responses.stream(model="gpt-4o", input="Hi") as stream:
            final = await stream.get_final_response()
        assert count_tokens(final.output_text) == final.usage.output_tokens

    @pytest.mark.parametrize("area", ["messages", "beta.messages"])
    def test_messages_helper(self, shell, area):
        """The messages helper builds the whole message from the events, search and thinking included."""
        client: Any = shell.anthropic()
        for name in area.split("."):
            client = getattr(client, name)
        with client.stream(
            model="claude-sonnet-5-5",
            max_tokens=2000,
            messages=[{"role": "user", "content": "a web search"}],
            tools=[SEARCH_TOOL],
            thinking={"type": "enabled", "budget_tokens": 1024},
        ) as stream:
            final = stream.get_final_message()
        kinds = [block.type for block in final.content]
        assert kinds == ["thinking", "server_tool_use", "web_search_tool_result", "text"]
        assert final.usage.server_tool_use.web_search_requests == 1
        assert final.usage.output_tokens > count_tokens(final.content[-1].text)

    async def test_messages_helper_async(self, shell):
        """The asynchronous messages helper assembles a tool call."""
        async with shell.anthropic(anthropic.AsyncAnthropic).messages.stream(
            model="claude-sonnet-5-5",
            max_tokens=99,
            messages=HELLO,
            tools=[MESSAGE_TOOL],
            tool_choice={"type": "any"},
        ) as stream:
            final = await stream.get_final_message()
        assert final.content[0].input == {"city": "a good start", "days": 1}

    @deprecated_too
    @pytest.mark.parametrize("surface", ["images", "transcription", "run", "completion"])
    def test_other_streams_end_with_usage(self, shell, surface):
        """Images, transcriptions, runs and legacy completions stream, and their last event has the usage."""
        client = shell.openai()
        stream = {
            "images": lambda: client.images.generate(
                model="gpt-image-1", prompt="a cat", stream=True, partial_images=2
            ),
            "transcription": lambda: client.audio.transcriptions.create(
                model="gpt-4o-transcribe", file=WAV, stream=True
            ),
            "run": lambda: client.beta.threads.create_and_run(assistant_id="a", stream=True),
            "completion": lambda: client.completions.create(
                model="babbage-002", prompt="Hi", stream=True, stream_options={"include_usage": True}
            ),
        }[surface]()
        last = list(stream)[-1]
        assert getattr(last, "data", last).usage.total_tokens > 0


class TestBackground:
    def test_a_background_response_is_ready_after_its_polls(self):
        """A background response has no usage until the set number of polls has passed."""
        with LLMServer(polls=1) as server:
            client = openai.OpenAI(base_url=server.openai_base_url, api_key="any")
            sent = client.responses.create(model="gpt-4o", input="Hi", background=True)
            looks = [client.responses.retrieve(sent.id) for _ in range(2)]
        assert [sent.status, *(look.status for look in looks)] == ["queued", "in_progress", "completed"]
        assert (sent.usage, looks[0].usage, looks[1].usage.input_tokens) == (None, None, 1)

    def test_an_openai_batch_runs_its_lines(self, shell):
        """A batch answers each line with a body that has its usage."""
        client = shell.openai()
        line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions"}
        line["body"] = {"model": "gpt-4o", "messages": HELLO}
        file = client.files.create(file=("in.jsonl", json.dumps(line).encode()), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        done = client.batches.retrieve(batch.id)
        result = json.loads(client.files.content(done.output_file_id).text)
        assert (batch.status, done.status, done.request_counts.completed) == ("validating", "completed", 1)
        assert (result["custom_id"], result["response"]["body"]["usage"]["prompt_tokens"]) == ("a", 5)
        assert shell.server.generated["gpt-4o"].requests == 1

    async def test_an_anthropic_batch_has_results(self, shell):
        """The results of a message batch are messages billed at the batch tier."""
        client = shell.anthropic(anthropic.AsyncAnthropic)
        params = {"model": "claude-sonnet-5-5", "max_tokens": 9, "messages": HELLO}
        batch = await client.messages.batches.create(requests=[{"custom_id": "a", "params": params}])
        results = [each async for each in await client.messages.batches.results(batch.id)]
        assert (results[0].custom_id, results[0].result.message.usage.service_tier) == ("a", "batch")


class TestFaults:
    def test_a_failure_with_retry_after(self, shell):
        """A status asked for is answered, with its Retry-After, and bills nothing."""
        headers = {"x-llm-status": "429", "x-llm-retry-after": "7"}
        with pytest.raises(openai.RateLimitError) as caught:
            shell.openai().chat.completions.create(model="gpt-4o", messages=HELLO, extra_headers=headers)
        assert caught.value.response.headers["retry-after"] == "7"
        assert shell.server.generated == {}

    def test_an_anthropic_failure_has_its_own_shape(self, shell):
        """Anthropic's errors are typed the way its SDK reads them."""
        with pytest.raises(anthropic.APIStatusError) as caught:
            shell.anthropic().messages.create(
                model="m", max_tokens=9, messages=HELLO, extra_headers={"x-llm-status": "529"}
            )
        assert caught.value.body["error"]["type"] == "overloaded_error"

    def test_a_retry_succeeds(self, shell):
        """An attempt can fail so often and no more, as the SDK's own retry count tells."""
        client = shell.openai().with_options(max_retries=2)
        headers = {"x-llm-status": "500", "x-llm-fail-times": "1", "x-llm-retry-after": "0.01"}
        client.chat.completions.create(model="gpt-4o", messages=HELLO, extra_headers=headers)
        assert (len(shell.server.requests), shell.server.generated["gpt-4o"].requests) == (2, 1)

    def test_a_mistyped_control_is_refused(self, shell):
        """An unknown control header is an error rather than a test that steers nothing."""
        with pytest.raises(openai.BadRequestError, match="x-llm-latncy"):
            shell.openai().chat.completions.create(
                model="gpt-4o", messages=HELLO, extra_headers={"x-llm-latncy": "1"}
            )

    @pytest.mark.parametrize("chunks", [0, 1, 4])
    def test_a_stream_is_cut_after_its_chunks(self, shell, chunks):
        """The caller gets exactly so many chunks and then a connection error."""
        stream = shell.openai().chat.completions.create(
            model="gpt-4o", messages=HELLO, stream=True, extra_headers={"x-llm-cut-after": str(chunks)}
        )
        seen = []
        with pytest.raises(openai.APIConnectionError):
            seen.extend(iter_into(seen, stream))
        assert len(seen) == chunks

    async def test_a_cut_stream_fails_async_readers(self, shell):
        """An asynchronous reader of a cut message stream gets the HTTP library's own error."""
        stream = await shell.anthropic(anthropic.AsyncAnthropic).messages.create(
            model="m", max_tokens=9, messages=HELLO, stream=True, extra_headers={"x-llm-cut-after": "4"}
        )
        with pytest.raises(http_flavour("anthropic").RemoteProtocolError):
            async for _ in stream:
                pass

    @pytest.mark.parametrize("after", ["0", "1"])
    def test_a_plain_answer_is_cut(self, shell, after):
        """A plain answer is cut before its first byte or in its middle."""
        with pytest.raises(openai.APIConnectionError):
            shell.openai().chat.completions.create(
                model="gpt-4o", messages=HELLO, extra_headers={"x-llm-cut-after": after}
            )

    def test_a_hanging_server_times_the_caller_out(self, shell):
        """A request that is never answered ends with the caller's timeout."""
        with pytest.raises(openai.APITimeoutError):
            shell.openai().chat.completions.create(
                model="gpt-4o", messages=HELLO, timeout=0.05, extra_headers={"x-llm-hang": "1"}
            )

    def test_latency_is_waited(self, shell):
        """The first byte comes after the latency."""
        before = time.perf_counter()
        shell.openai().chat.completions.create(
            model="gpt-4o", messages=HELLO, extra_headers={"x-llm-latency-ms": "30"}
        )
        assert time.perf_counter() - before >= 0.03

    def test_chunks_are_paced(self, shell):
        """Each chunk of a stream comes after its own wait: here eight of them."""
        before = time.perf_counter()
        headers = {"x-llm-chunk-latency-ms": "5", "x-llm-chunks": "4"}
        list(
            shell.openai().chat.completions.create(
                model="gpt-4o", messages=HELLO, stream=True, extra_headers=headers
            )
        )
        assert time.perf_counter() - before >= 0.03


def iter_into(seen, stream):
    """Append to *seen* one by one, so that an error in the middle loses nothing."""
    for item in stream:
        seen.append(item)
    return []


class TestServer:
    def test_logs_requests(self, server):
        """The log has method, path, lower-case headers, the body and when it came."""
        client = openai.OpenAI(base_url=server.openai_base_url, api_key="secret")
        client.chat.completions.create(model="gpt-4o", messages=HELLO)
        record = server.requests[-1]
        assert (record.method, record.path, record.body["messages"]) == (
            "POST",
            "/v1/chat/completions",
            HELLO,
        )
        assert record.headers["authorization"] == "Bearer secret"
        assert abs(record.when_s - time.time()) < 60

    def test_closing_ends_hanging_requests(self):
        """A server closes at once while a request hangs, and its caller gets an error."""
        caught: list[Exception] = []
        with LLMServer(controls=Controls(hang=True)) as server:
            client = openai.OpenAI(base_url=server.openai_base_url, api_key="any", max_retries=0)
            caller = threading.Thread(target=self._failing_call, args=(client, caught))
            caller.start()
            while not server.requests:
                time.sleep(0.005)
        caller.join(5)
        assert isinstance(caught[0], openai.APIConnectionError)

    @staticmethod
    def _failing_call(client, caught):
        try:
            client.chat.completions.create(model="gpt-4o", messages=HELLO)
        except openai.APIConnectionError as error:
            caught.append(error)

    def test_leaves_no_thread(self):
        """After closing, no thread of the server is left."""
        before = threading.active_count()
        with LLMServer() as server:
            client = openai.OpenAI(base_url=server.openai_base_url, api_key="any")
            client.chat.completions.create(model="gpt-4o", messages=HELLO)
        assert threading.active_count() <= before + 1  # a connection's thread may be on its last line

    def test_serves_many_connections_at_once(self, server):
        """Eight clients in parallel are answered in about the latency of one."""
        client = openai.OpenAI(base_url=server.openai_base_url, api_key="any")
        call = lambda: client.chat.completions.create(  # noqa: E731
            model="gpt-4o", messages=HELLO, extra_headers={"x-llm-latency-ms": "200"}
        )
        callers = [threading.Thread(target=call) for _ in range(8)]
        before = time.perf_counter()
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert time.perf_counter() - before < 8 * 0.2
        assert server.generated["gpt-4o"].requests == 8

    def test_reads_chunked_bodies(self, server):
        """A request body sent in chunks of unknown number is read whole."""
        body = iter([b'{"model": "gpt-4o", ', b'"messages": []}'])
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"{server.url}/v1/chat/completions", body, headers)
        with urllib.request.urlopen(request) as reply:
            assert json.load(reply)["model"] == "gpt-4o"
        assert server.requests[-1].body == {"model": "gpt-4o", "messages": []}

    def test_needs_to_run_for_an_address(self):
        """The address of a server that is not running is an error that says what to do."""
        with pytest.raises(RuntimeError, match="context manager"):
            _ = LLMServer().url

    def test_runs_from_the_command_line(self):
        """The command prints its address first and ends with 0 when it is told to."""
        command = [sys.executable, "-m", "paygent.testing.llm_server", "--port", "0", "--reply-tokens", "3"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            url = process.stdout.readline().strip()
            client = anthropic.Anthropic(base_url=url, api_key="any")
            answer = client.messages.create(model="m", max_tokens=9, messages=HELLO)
            process.terminate()
            assert process.wait(10) == 0
        assert answer.usage.output_tokens == 3

    def test_loads_no_http_client(self):
        """The server and the transport load neither HTTP client nor SDK before they are used."""
        code = (
            "import sys, paygent.testing.llm_server, paygent.testing.transport;"
            "print([m for m in ('httpx', 'httpx2', 'openai', 'anthropic') if m in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"


class TestTransport:
    @pytest.mark.parametrize(
        "fixed",
        [
            FakeProvider().answer("POST", "/v1/chat/completions", {}, b'{"model": "gpt-4o"}'),
            FakeProvider().answer("POST", "/v1/chat/completions", {}, b'{"model": "gpt-4o"}').body,
            json.loads(
                FakeProvider().answer("POST", "/v1/chat/completions", {}, b'{"model": "gpt-4o"}').body
            ),
        ],
        ids=["answer", "bytes", "object"],
    )
    @pytest.mark.parametrize("client_type", [openai.OpenAI, openai.AsyncOpenAI])
    async def test_a_fixed_body_is_given_back(self, fixed, client_type):
        """A fixed body, in any of its three forms, is the answer to whatever is asked."""
        http_client = stub_http_client("openai", client_type is openai.AsyncOpenAI, fixed)
        client = client_type(api_key="any", http_client=http_client)
        answer = await settled(client.chat.completions.create(model="other", messages=HELLO))
        assert answer.model == "gpt-4o"

    def test_a_function_answers(self):
        """A function gets method, path with query, headers and body, and may answer with a plain object."""
        seen = []

        def respond(method, path, headers, body):
            seen.append((method, path, headers["x-test"], json.loads(body)["input"]))
            return {"id": "modr-1", "model": "m", "results": []}

        client = openai.OpenAI(api_key="any", http_client=stub_http_client(respond=respond))
        client.moderations.create(input="Hi", extra_headers={"x-test": "yes"}, extra_query={"a": "b"})
        assert seen == [("POST", "/v1/moderations?a=b", "yes", "Hi")]

    def test_without_a_body_a_fresh_provider_answers(self):
        """The default stub answers as the server does."""
        client = anthropic.Anthropic(api_key="any", http_client=stub_http_client("anthropic"))
        answer = client.messages.create(model="m", max_tokens=2, messages=HELLO)
        assert answer.usage.output_tokens == 2

    @pytest.mark.parametrize("sdk", ["openai", "anthropic"])
    def test_the_flavour_is_that_of_the_sdk(self, sdk):
        """The stub is built on the HTTP library that the installed SDK is built on."""
        package = sys.modules[sdk]
        assert issubclass(package.DefaultHttpxClient, http_flavour(sdk).Client)
