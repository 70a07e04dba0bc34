"""Chat models and LLMs of LangChain's, as its provider packages build them."""

from __future__ import annotations

from typing import Any

import openai
from langchain_core.language_models import BaseChatModel, BaseLLM
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, Generation, LLMResult

from paygent.testing.transport import stub_http_client

USAGE: dict[str, Any] = {
    "input_tokens": 1000,
    "output_tokens": 1000,
    "total_tokens": 2000,
    "input_token_details": {"cache_read": 400, "cache_creation": 100},
    "output_token_details": {"reasoning": 300},
}
WORDS = ("Hello", " there", " and", " welcome")


class ChatOther(BaseChatModel):
    """A chat model of a provider whose SDK Paygent does not patch; it reports its usage."""

    model: str = "other-1"
    usage: dict[str, Any] | None = USAGE
    tools: list[dict[str, Any]] = []  # noqa: RUF012  # pydantic copies defaults
    fails: bool = False
    answered: list[Any] = []  # noqa: RUF012  # pydantic copies defaults

    @property
    def _llm_type(self) -> str:
        return "other-chat"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        if self.fails:
            raise ConnectionError("no provider")
        self.answered.append(messages)
        message = AIMessage(
            content="Hello there",
            usage_metadata=self.usage,
            tool_calls=self.tools,
            response_metadata={"model_name": f"{self.model}-2026-01-01"},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])


class ChatStreaming(ChatOther):
    """The same with a stream: usage comes with the last chunk."""

    breaks_after: int = 99

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        for number, word in enumerate(WORDS):
            if number == self.breaks_after:
                raise ConnectionError("cut")
            yield ChatGenerationChunk(message=AIMessageChunk(content=word))
        yield ChatGenerationChunk(message=AIMessageChunk(content="", usage_metadata=self.usage))


class ChatThroughSDK(BaseChatModel):
    """A chat model that asks the real OpenAI SDK, as ``ChatOpenAI`` does."""

    client: Any

    @property
    def _llm_type(self) -> str:
        return "openai-chat"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": "gpt-4o"}

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        asked = [{"role": "user", "content": messages[0].content}]
        answer = self.client.chat.completions.create(model="gpt-4o", messages=asked)
        generation = ChatGeneration(message=AIMessage(content=answer.choices[0].message.content))
        output = {"token_usage": answer.usage.model_dump(), "model_name": answer.model}
        return ChatResult(generations=[generation], llm_output=output)


class BatchingLLM(BaseLLM):
    """A plain LLM that reports the usage of a batch as a whole, as ``OpenAI`` does."""

    @property
    def _llm_type(self) -> str:
        return "other"

    def _generate(self, prompts, stop=None, run_manager=None, **kwargs):
        usage = {"prompt_tokens": 1000, "completion_tokens": 1000, "total_tokens": 2000}
        return LLMResult(
            generations=[[Generation(text="Hi")] for _ in prompts],
            llm_output={"token_usage": usage, "model_name": "other-1"},
        )


def chat_through_sdk() -> ChatThroughSDK:
    """Return a model whose every answer uses 1 000 tokens in and 1 000 out."""
    answer = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello"}}
        ],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 1000, "total_tokens": 2000},
    }
    http_client = stub_http_client("openai", respond=answer)
    return ChatThroughSDK(client=openai.OpenAI(api_key="test", http_client=http_client, max_retries=0))
