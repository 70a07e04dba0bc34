from __future__ import annotations

import json
import sys
from datetime import timedelta

import anthropic
import openai
import pytest
from llm_shells import HELLO, settled

from paygent.testing.llm_server import FakeProvider
from paygent.testing.transport import http_flavour, stub_http_client


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
        ask = client.chat.completions.create
        answers = [await settled(ask(model="other", messages=HELLO)) for _ in range(2)]
        await settled(client.close())
        assert [answer.model for answer in answers] == ["gpt-4o", "gpt-4o"]

    @pytest.mark.parametrize("client_type", [openai.OpenAI, openai.AsyncOpenAI])
    async def test_a_fixed_body_has_its_own_response_each_time(self, client_type):
        """Two answers from one fixed body are two responses, each with its own request."""
        http_client = stub_http_client("openai", client_type is openai.AsyncOpenAI, {"id": "modr-1"})
        client = client_type(api_key="any", http_client=http_client)
        ask = client.moderations.with_raw_response.create
        first, second = [(await settled(ask(input=text))).http_response for text in ("one", "two")]
        await settled(client.close())
        assert [json.loads(each.request.content)["input"] for each in (first, second)] == ["one", "two"]
        assert first.elapsed == second.elapsed == timedelta(0)

    @pytest.mark.parametrize("client_type", [openai.OpenAI, openai.AsyncOpenAI])
    async def test_a_fixed_stream_is_given_back(self, client_type):
        """A fixed answer may be a stream, which each call reads from its start."""
        fixed = FakeProvider().answer("POST", "/v1/chat/completions", {}, b'{"model": "m", "stream": true}')
        http_client = stub_http_client("openai", client_type is openai.AsyncOpenAI, fixed)
        client = client_type(api_key="any", http_client=http_client)
        for _ in range(2):
            stream = await settled(client.chat.completions.create(model="m", messages=HELLO, stream=True))
            chunks = [chunk async for chunk in stream] if hasattr(stream, "__aiter__") else list(stream)
            assert len(chunks) == len(fixed.chunks) - 1  # [DONE] is no chunk
        await settled(client.close())

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
