"""Read what LangChain says of a call, before it and after it; duck-typed, so that nothing is imported."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from paygent.core.usage import Usage
from paygent.instrumentation import text_bytes
from paygent.instrumentation._fields import count, fields, items, text
from paygent.instrumentation.usage import anthropic_usage, openai_usage
from paygent.integrations._billing import Answer

# LangChain's words for providers, where ours differ.
_PROVIDERS = {
    "amazon_bedrock": "aws",
    "google_genai": "google",
    "google_vertexai": "vertex",
    "mistralai": "mistral",
    "xai": "x-ai",
}
_SDK_PROVIDERS = ("openai", "azure", "anthropic")
_SDK_TYPES = ("openai", "azure", "anthropic-llm", "openai-chat", "azure-openai-chat", "anthropic-chat")
# The base classes of everything that is built on one of the two SDKs; subclasses such as ChatDeepSeek too.
_SDK_BASES = (
    ("langchain_openai.chat_models.base", "BaseChatOpenAI"),
    ("langchain_openai.llms.base", "BaseOpenAI"),
    ("langchain_anthropic.chat_models", "ChatAnthropic"),
)
_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens", "max_tokens_to_sample")


class Ask(NamedTuple):
    """What is known of a call before it is made."""

    provider: str | None
    model: str | None
    max_output_tokens: int | None


def ask_of(params: Mapping[str, Any], metadata: Mapping[str, Any]) -> Ask:
    """Read a call from LangChain's *params* of the invocation and its tracing *metadata* (``ls_…``)."""
    provider = text(metadata.get("ls_provider"))
    model = text(params.get("model")) or text(params.get("model_name")) or text(metadata.get("ls_model_name"))
    limits = (count(params.get(name)) for name in _LIMITS)
    limit = next((most for most in limits if most > 0), count(metadata.get("ls_max_tokens")))
    answers = max(1, count(params.get("n")))
    return Ask(_PROVIDERS.get(provider or "", provider), model, limit * answers if limit > 0 else None)


def goes_through_sdk(
    serialized: Mapping[str, Any] | None, params: Mapping[str, Any], provider: str | None
) -> bool:
    """Whether the model is built on the OpenAI or Anthropic SDK, whose patched client sees the call."""
    if provider in _SDK_PROVIDERS or params.get("_type") in _SDK_TYPES:
        return True
    names = items((serialized or {}).get("id"))
    return bool(names) and names[-1] in set(_sdk_class_names())


def _sdk_class_names() -> Iterator[str]:
    for module, name in _SDK_BASES:
        base = getattr(sys.modules.get(module), name, None)
        if base is not None:
            yield from _names_below(base)


def _names_below(base: type) -> Iterator[str]:
    yield base.__name__
    children: list[type] = base.__subclasses__()
    for child in children:
        yield from _names_below(child)


def answer_of(response: Any, *, is_batched: bool = False) -> Answer:
    """
    Read an ``LLMResult``; usage comes from the first message that has it, else from ``llm_output``.

    Several generations are answers to one prompt (``n``), and each message then repeats the call's usage.

    Args:
        is_batched: Plain LLMs report the usage of a batch with its first prompt, and an empty
            ``token_usage`` with the others: those are free.
    """
    output = fields(getattr(response, "llm_output", None))
    generations = [item for row in items(getattr(response, "generations", None)) for item in row]
    messages = [getattr(item, "message", None) for item in generations]
    said = [message for message in messages if message is not None]
    size = sum(text_bytes(str(getattr(item, "text", ""))) for item in generations)  # a subclass of str
    reported = next((usage for usage in map(_message_usage, said) if usage is not None), None)
    return Answer(
        reported or _output_usage(output),
        size + sum(_calls_bytes(message) for message in said),
        _model_of(said, output),
        tuple(name for message in said for name in _tool_names(message)),
        is_free=_is_from_cache(said) or (is_batched and output.get("token_usage") == {}),
    )


def _message_usage(message: Any) -> Usage | None:
    """
    Read ``usage_metadata``: ``{"input_tokens", "output_tokens", "input_token_details", …}``.

    Input includes all that was read from or written to a cache. OpenAI's tiers stand before the names of the
    details (``flex_cache_read``); Anthropic's one-hour writes stand beside ``cache_creation``, then zero.
    """
    block = fields(getattr(message, "usage_metadata", None))
    if not block:
        return None
    tier = text(fields(getattr(message, "response_metadata", None)).get("service_tier"))
    read, made = fields(block.get("input_token_details")), fields(block.get("output_token_details"))
    one_hour = count(read.get("ephemeral_1h_input_tokens"))
    written = count(read.get("ephemeral_5m_input_tokens")) + one_hour
    return Usage(
        count(block.get("input_tokens")),
        count(block.get("output_tokens")),
        _detail(read, "cache_read", tier),
        max(written, _detail(read, "cache_creation", tier)),
        one_hour,
        count(read.get("audio")),
        count(made.get("audio")),
        _detail(made, "reasoning", tier),
        service_tier=tier,
    )


def _detail(details: Mapping[str, Any], name: str, tier: str | None) -> int:
    return count(details.get(name)) or count(details.get(f"{tier}_{name}"))


def _output_usage(output: Mapping[str, Any]) -> Usage | None:
    block = fields(output.get("token_usage") or output.get("usage"))
    is_anthropic = "cache_read_input_tokens" in block or "cache_creation_input_tokens" in block
    return (anthropic_usage if is_anthropic else openai_usage)(block) if block else None


def _model_of(messages: list[Any], output: Mapping[str, Any]) -> str | None:
    notes = [fields(getattr(message, "response_metadata", None)) for message in messages]
    named = (text(note.get(key)) for note in (*notes, output) for key in ("model_name", "model"))
    return next((name for name in named if name), None)


def _tool_names(message: Any) -> Iterator[str]:
    for call in (
        *items(getattr(message, "tool_calls", None)),
        *items(getattr(message, "invalid_tool_calls", None)),
    ):
        name = text(fields(call).get("name"))
        if name:
            yield name


def _calls_bytes(message: Any) -> int:
    return sum(text_bytes(fields(call).get("args")) for call in items(getattr(message, "tool_calls", None)))


def _is_from_cache(messages: list[Any]) -> bool:
    """Whether LangChain's own cache answered: it then sets the cost, which no provider reports, to zero."""
    blocks = [fields(getattr(message, "usage_metadata", None)) for message in messages]
    return any(block.get("total_cost") == 0 for block in blocks)
