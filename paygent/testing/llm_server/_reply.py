"""What the model decides to say: text, tool calls or both; the same for every API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paygent.testing.llm_server._controls import COUNTED
from paygent.testing.llm_server._values import Generated, Json, Request
from paygent.testing.llm_server._words import (
    count_tokens,
    json_for,
    pieces_of,
    texts_of,
)


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool the model may call; ``hosted`` ones (web search) the provider runs itself, and bills."""

    name: str
    schema: Json
    hosted: bool = False


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool, with its arguments as JSON text."""

    tool: Tool
    arguments: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model said; ``cut`` says that the caller's maximum ended it."""

    pieces: tuple[str, ...]
    tools: tuple[ToolCall, ...] = ()
    cut: bool = False

    @property
    def text(self) -> str:
        """The text as one string."""
        return "".join(self.pieces)

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls that the caller has to run."""
        return tuple(call for call in self.tools if not call.tool.hosted)

    @property
    def searches(self) -> tuple[ToolCall, ...]:
        """The calls that the provider has run."""
        return tuple(call for call in self.tools if call.tool.hosted)

    @property
    def tokens(self) -> int:
        """The tokens that were generated: text, and name and arguments of tools."""
        return len(self.pieces) + sum(
            count_tokens(call.tool.name) + count_tokens(call.arguments) for call in self.tools
        )


def compose(
    request: Request,
    *,
    messages: Any,
    tools: tuple[Tool, ...] = (),
    forced: str | None = None,
    schema: Mapping[str, Any] | None = None,
    tokens_max: int | None = None,
) -> Reply:
    """
    Decide what to say.

    A tool is called when the caller forces it (*forced*: its name, or ``"required"`` for the first one), or
    when the last message is the user's and names it, as in "please use get_weather".
    """
    called = _called(tools, forced, messages)
    if any(not call.tool.hosted for call in called):
        return Reply((), called)
    pieces = pieces_of(json_for(schema)) if schema else request.controls.reply_pieces()
    cut = tokens_max is not None and tokens_max < len(pieces)
    return Reply(pieces[:tokens_max] if cut else pieces, called, cut)


def _called(tools: tuple[Tool, ...], forced: str | None, messages: Any) -> tuple[ToolCall, ...]:
    if not tools or forced == "none":
        return ()
    if forced == "required":
        chosen = tools[:1]
    elif forced:
        chosen = tuple(tool for tool in tools if tool.name == forced)
    else:
        words = _last_words(messages)
        chosen = tuple(tool for tool in tools if tool.name in words or tool.name.replace("_", " ") in words)
    return tuple(ToolCall(tool, json_for(tool.schema)) for tool in chosen)


def _last_words(messages: Any) -> str:
    """The user's last message; nothing where a tool's result came last, or it would be called for ever."""
    last = messages[-1] if isinstance(messages, list) and messages else messages
    if isinstance(last, Mapping) and last.get("role") != "user":
        return ""
    return " ".join(texts_of(last))


@dataclass(frozen=True, slots=True)
class Count:
    """
    Tokens of one answer, before any API words them.

    ``input`` includes cache reads and writes, ``output`` includes reasoning.
    """

    input: int
    output: int
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0
    searches: int = 0


def counted(request: Request, input_tokens: int, output_tokens: int, searches: int = 0) -> Count:
    """Return the tokens of an answer as the request's controls change them."""
    controls = request.controls
    read = min(controls.cached_tokens, input_tokens)
    write = min(controls.cache_write_tokens, input_tokens - read)
    reasoning = controls.reasoning_tokens
    if controls.usage is not None:
        return Count(
            *controls.usage, controls.cached_tokens, controls.cache_write_tokens, reasoning, searches
        )
    return Count(input_tokens, output_tokens + reasoning, read, write, reasoning, searches)


def billed(request: Request, count: Count, block: Json) -> tuple[Json | None, dict[str, Generated]]:
    """Return the usage block to answer (counted as *block*, or as the controls say) and what it bills."""
    raw = request.controls.usage_json
    if raw is COUNTED:
        return block, {request.model: Generated(1, count.input, count.output)}
    return raw, {request.model: generated_of(raw or block)}


def generated_of(usage: Mapping[str, Any]) -> Generated:
    """Read a usage block of any of the APIs."""
    cached = (usage.get("cache_creation_input_tokens") or 0) + (usage.get("cache_read_input_tokens") or 0)
    read = usage.get("prompt_tokens", usage.get("input_tokens")) or 0
    return Generated(1, read + cached, usage.get("completion_tokens", usage.get("output_tokens")) or 0)
