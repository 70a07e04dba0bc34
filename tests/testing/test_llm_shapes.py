from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import anthropic
import openai
import pydantic
import pytest
from llm_shells import (
    ANTHROPIC_KNOWS_SEARCH,
    ANTHROPIC_PARSES,
    CHAT_TOOL,
    HELLO,
    MESSAGE_TOOL,
    OPENAI_KNOWS_COMPACT,
    PNG,
    RESPONSE_TOOL,
    SEARCH_TOOL,
    WAV,
    chat_helpers,
    deprecated_too,
    settled,
)

from paygent.testing.llm_server import FakeProvider


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
        model="gpt-4o", input="please use get_weather", tools=[RESPONSE_TOOL]
    ),
    "responses cut": lambda c: c.responses.with_raw_response.create(
        model="gpt-4o", input="Hi", max_output_tokens=3
    ),
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
    "file": lambda c: c.files.with_raw_response.create(file=("a.txt", b"text"), purpose="batch"),
    "batch": lambda c: c.batches.with_raw_response.create(
        input_file_id="file-none", endpoint="/v1/chat/completions", completion_window="24h"
    ),
    "thread": lambda c: c.beta.threads.with_raw_response.create(),
    "run": lambda c: c.beta.threads.with_raw_response.create_and_run(assistant_id="asst_1"),
}
if OPENAI_KNOWS_COMPACT:
    OPENAI_SURFACES |= {
        "input tokens": lambda c: c.responses.input_tokens.with_raw_response.count(
            model="gpt-4o", input="Hi"
        ),
        "compact": lambda c: c.responses.with_raw_response.compact(model="gpt-4o", input="Hi"),
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
if ANTHROPIC_KNOWS_SEARCH:
    ANTHROPIC_SURFACES |= {
        "messages search": lambda c: c.messages.with_raw_response.create(
            model="claude-sonnet-5-5",
            max_tokens=100,
            messages=HELLO,
            tools=[SEARCH_TOOL],
            tool_choice={"type": "tool", "name": "web_search"},
        ),
    }


def posted_paths(sdk: Any) -> set[str]:
    """Read the paths of all POSTs from the source of an SDK."""
    sources = Path(sdk.__file__).parent.joinpath("resources").rglob("*.py")
    post = re.compile(r'self\._post\(\s*(?:path_template\(\s*)?f?"([^"]+)"')
    return {path for source in sources for path in post.findall(source.read_text(encoding="utf-8"))}


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
        assert "usage" not in images.to_dict()

    def test_gpt_image_reports_tokens(self, shell):
        """Images of GPT Image bill text tokens in and a fixed number of tokens per image out."""
        images = shell.openai().images.generate(model="gpt-image-1", prompt="a cat", n=2, quality="low")
        usage = images.to_dict()["usage"]
        assert (usage["input_tokens"], usage["output_tokens"]) == (2, 544)

    def test_whisper_bills_its_duration(self, shell):
        """Whisper's usage is a duration, three seconds for this file."""
        heard = shell.openai().audio.transcriptions.create(model="whisper-1", file=WAV)
        assert heard.to_dict()["usage"] == {"type": "duration", "seconds": 3}

    def test_transcription_bills_tokens(self, shell):
        """The newer transcription models bill audio tokens in."""
        heard = shell.openai().audio.transcriptions.create(model="gpt-4o-transcribe", file=WAV)
        usage = heard.to_dict()["usage"]
        assert (usage["type"], usage["input_token_details"]["audio_tokens"]) == ("tokens", 30)

    def test_embeddings_are_decoded_by_the_sdk(self, shell):
        """The SDK's default encoding decodes to one unit vector of the asked size per input."""
        found = shell.openai().embeddings.create(
            model="text-embedding-3-small", input=["a", "b"], dimensions=8
        )
        assert [sum(each.embedding) for each in found.data] == [1.0, 1.0]

    def test_azure_takes_the_model_from_the_deployment(self, server):
        """An Azure client is answered at its deployment's path."""
        with openai.AzureOpenAI(azure_endpoint=server.url, api_key="any", api_version="1") as client:
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

    @pytest.mark.parametrize("sdk", [openai, anthropic])
    @pytest.mark.parametrize("stream", [False, True])
    def test_every_path_an_sdk_posts_to_is_answered(self, sdk, stream):
        """No POST of the installed SDKs meets an error, streamed or not, whatever it is for."""
        provider = FakeProvider()
        body = json.dumps({"stream": stream}).encode()
        paths = {re.sub(r"\{.*?\}", "id_1", path) for path in posted_paths(sdk)}
        statuses = {path: provider.answer("POST", path, {}, body).status for path in paths}
        assert len(paths) > 5
        assert {path: status for path, status in statuses.items() if status != 200} == {}

    def test_an_unknown_file_is_missing(self, shell):
        """A GET of an id that was never made is a 404."""
        with pytest.raises(openai.NotFoundError):
            shell.openai().files.retrieve("file-none")


class Answer(pydantic.BaseModel):
    """What a structured answer is parsed into."""

    word: str
    count: int
    tags: list[str]


class TestStructure:
    def test_chat_parse(self, shell):
        """A chat answer fits the asked JSON schema, so that parse() returns the model."""
        answer = chat_helpers(shell.openai()).parse(model="gpt-4o", messages=HELLO, response_format=Answer)
        assert isinstance(answer.choices[0].message.parsed, Answer)

    def test_responses_parse(self, shell):
        """A response fits the asked JSON schema."""
        answer = shell.openai().responses.parse(model="gpt-4o", input="Hi", text_format=Answer)
        assert isinstance(answer.output_parsed, Answer)

    if ANTHROPIC_PARSES:

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
