from __future__ import annotations

import json
from typing import Any

import anthropic
import openai
import pytest
from llm_shells import (
    ANTHROPIC_KNOWS_SEARCH,
    CHAT_TOOL,
    HELLO,
    MESSAGE_TOOL,
    OPENAI_STREAMS_IMAGES,
    OPENAI_STREAMS_TRANSCRIPTS,
    RESPONSE_TOOL,
    SEARCH_TOOL,
    WAV,
    chat_helpers,
    deprecated_too,
)

from paygent.testing.llm_server._words import count_tokens

STREAMED = ["run", "completion"]
STREAMED += ["images"] * OPENAI_STREAMS_IMAGES + ["transcription"] * OPENAI_STREAMS_TRANSCRIPTS


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
        with chat_helpers(shell.openai()).stream(
            model="gpt-4o", messages=HELLO, tools=[CHAT_TOOL], tool_choice="required"
        ) as stream:
            final = stream.get_final_completion()
        assert json.loads(final.choices[0].message.tool_calls[0].function.arguments)["days"] == 1

    @pytest.mark.parametrize(
        "options,items",
        [
            ({}, ["message"]),
            ({"tools": [RESPONSE_TOOL], "tool_choice": "required"}, ["function_call"]),
            ({"tools": [{"type": "web_search_preview"}]}, ["web_search_call", "message"]),
        ],
        ids=["text", "tool", "search"],
    )
    def test_responses_helper(self, shell, options, items):
        """The responses helper accepts the order of the events and ends with the items and the usage."""
        with shell.openai().responses.stream(model="gpt-4o", input="a web search", **options) as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_response()
        assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
        assert [item.type for item in final.output] == items
        assert final.usage.input_tokens >= 3

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
            tools=[SEARCH_TOOL] if ANTHROPIC_KNOWS_SEARCH else [],
            thinking={"type": "enabled", "budget_tokens": 1024},
        ) as stream:
            final = stream.get_final_message()
        searched = ["server_tool_use", "web_search_tool_result"] if ANTHROPIC_KNOWS_SEARCH else []
        assert [block.type for block in final.content] == ["thinking", *searched, "text"]
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
    @pytest.mark.parametrize("surface", STREAMED)
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
