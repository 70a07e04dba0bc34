"""SDK clients on the loopback server and on the stub transport, and what the tests ask them."""

from __future__ import annotations

import inspect
from typing import Any

import anthropic
import openai
import pytest
from openai.resources.responses import Responses

from paygent.testing.llm_server import LLMServer
from paygent.testing.transport import stub_http_client

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

# What the installed SDKs know; the suite also runs on the oldest ones we support.
OPENAI_KNOWS_COMPACT = hasattr(Responses, "compact")
OPENAI_STREAMS_IMAGES = "stream" in inspect.signature(openai.resources.Images.generate).parameters
OPENAI_STREAMS_TRANSCRIPTS = (
    "stream" in inspect.signature(openai.resources.audio.Transcriptions.create).parameters
)
ANTHROPIC_KNOWS_SEARCH = hasattr(anthropic.types, "ServerToolUseBlock")
ANTHROPIC_PARSES = hasattr(anthropic.resources.Messages, "parse")

# Surfaces that an SDK calls deprecated still answer, and still bill.
deprecated_too = pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")


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


def chat_helpers(client: Any) -> Any:
    """Return where ``parse`` and ``stream`` of chat completions are: under ``beta`` in older SDKs."""
    completions = client.chat.completions
    return completions if hasattr(completions, "parse") else client.beta.chat.completions


async def settled(value: Any) -> Any:
    """Await *value* where the client was an asynchronous one."""
    return await value if inspect.isawaitable(value) else value
