"""
Readers of streams: what one stream has reported so far, event by event.

A reader is fed every event, as an SDK model or as :class:`~paygent.instrumentation._fields.Loose` JSON. It
keeps the usage reported, the bytes of output seen (text, tool arguments, reasoning), the model and the names
of tools. ``see`` returns true on the event after which usage is final.
"""

from __future__ import annotations

from typing import Any

from paygent.core.usage import Usage
from paygent.instrumentation._fields import count, fields, items, text, utf8_length
from paygent.instrumentation.usage import (
    anthropic_usage,
    block_tool_name,
    item_tool_name,
    openai_tools,
    openai_usage,
)

_RESPONSE_ENDS = frozenset(
    ("response.completed", "response.incomplete", "response.failed", "response.cancelled")
)

# What an event of another shape raises. Fields are read from ``__dict__``: where a class has ``__getattr__``,
# as pydantic's have, each attribute costs twice as much, and this is on the path of every chunk.
_OTHERWISE = (AttributeError, KeyError, TypeError, ValueError)


class Reader:
    """What a stream has reported so far; ``usage`` is as of the last event that carried any."""

    __slots__ = ("failed", "job", "model", "output_bytes", "tools", "usage")

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.output_bytes = 0
        self.model: str | None = None
        self.tools: list[str] = []
        self.failed = False
        self.job: str | None = None

    def see(self, event: Any) -> bool:
        """Take in one event; return whether usage is final now."""
        raise NotImplementedError  # abstract: each kind of stream has a reader of its own

    def skim(self, event: Any) -> bool:  # noqa: ARG002  # those that know one look at it
        """
        Take in an event that carries text and nothing else; false for every other one: that is to be seen.

        It never raises, whatever *event* is.
        """
        return False

    def _skimmed(self, text: str) -> bool:
        self.output_bytes += utf8_length(text)
        return True

    def _count(self, value: Any) -> None:
        if isinstance(value, str):
            self.output_bytes += utf8_length(value)


class ChatReader(Reader):
    """Chat completions: deltas; usage in a last chunk without choices, or (some servers) in every chunk."""

    __slots__ = ()

    def skim(self, event: Any) -> bool:
        """Take in the content of a chunk with one choice, and neither tool calls nor usage."""
        try:
            chunk = event.__dict__
            (choice,) = chunk["choices"]
            delta = choice.__dict__["delta"].__dict__
            content = delta["content"]
            if content and chunk["usage"] is None and not delta["tool_calls"] and self.model is not None:
                # As _skimmed does, but without a third function for each chunk of the usual kind of stream.
                self.output_bytes += len(content) if content.isascii() else utf8_length(content)
                return True
        except _OTHERWISE:
            return False
        return False

    def see(self, event: Any) -> bool:
        """Take in one chunk; the one with usage and without choices is final."""
        choices = event.choices
        if self.model is None:
            self.model = event.model
        if choices:
            for choice in choices:
                delta = choice.delta
                content = delta.content
                if content:
                    self.output_bytes += len(content) if content.isascii() else utf8_length(content)
                    if delta.tool_calls:
                        self._tools(delta)
                else:
                    self._rest(delta)
        if event.usage is None:
            return False
        self.usage = openai_usage(event)
        if self.model is None:
            self.model = text(event.model)
        return not choices

    def _rest(self, delta: Any) -> None:
        """Count what a delta without content carries: tool calls, refusals, reasoning of other servers."""
        if delta is None:
            return
        parts = fields(delta)
        if parts.get("tool_calls"):
            self._tools(delta)
        for name in ("refusal", "reasoning_content", "reasoning"):
            value = parts.get(name)
            if value is not None:
                self._count(value)
        function = parts.get("function_call")
        if function is not None:
            self._function(fields(function))

    def _tools(self, delta: Any) -> None:
        for call in items(delta.tool_calls):
            parts = fields(call)
            self._function(fields(parts.get("function") or parts.get("custom")))

    def _function(self, function: Any) -> None:
        name = text(function.get("name"))
        if name is not None:
            self.tools.append(name)
        self._count(function.get("arguments") or function.get("input"))


class CompletionReader(Reader):
    """Legacy completions: text in the choices; usage as in chat."""

    __slots__ = ()

    def see(self, event: Any) -> bool:
        """Take in one chunk; the one with usage and without choices is final."""
        parts = fields(event)
        choices = items(parts.get("choices"))
        for choice in choices:
            self._count(fields(choice).get("text"))
        self._count(parts.get("completion"))  # Anthropic's old text completions
        self.model = self.model or text(parts.get("model"))
        if parts.get("usage") is None:
            return False
        self.usage = openai_usage(event)
        return not choices


class ResponseReader(Reader):
    """The Responses API: deltas; usage in the response that the last event carries."""

    __slots__ = ()

    def skim(self, event: Any) -> bool:
        """Take in a delta of the answer's text."""
        try:
            parts = event.__dict__
            return parts["type"] == "response.output_text.delta" and self._skimmed(parts["delta"])
        except _OTHERWISE:
            return False

    def see(self, event: Any) -> bool:
        """Take in one event; completed, incomplete, failed and cancelled are final."""
        kind = event.type
        if kind == "response.output_text.delta":
            delta = event.delta
            self.output_bytes += len(delta) if delta.isascii() else utf8_length(delta)
            return False
        if kind.endswith(".delta"):
            # Audio comes as base64, which says nothing of tokens.
            if "audio.delta" not in kind:
                self._count(fields(event).get("delta"))
            return False
        if kind == "response.output_item.done":
            name = item_tool_name(event.item)
            if name is not None:
                self.tools.append(name)
            return False
        return self._response(kind, event) if kind.startswith("response.") else False

    def _response(self, kind: str, event: Any) -> bool:
        response = fields(event).get("response")
        if response is None:
            return False
        self.model = text(fields(response).get("model")) or self.model
        self.job = text(fields(response).get("id"))
        if kind not in _RESPONSE_ENDS:
            return False
        self.usage = openai_usage(response)
        self.tools = list(openai_tools(response)) or self.tools
        self.failed = self.usage is None and kind == "response.failed"
        return True


class MessageReader(Reader):
    """Anthropic messages: usage at the start, then again, **cumulative**, in each ``message_delta``."""

    __slots__ = ("_block",)

    def __init__(self) -> None:
        super().__init__()
        self._block: dict[str, Any] = {}

    def skim(self, event: Any) -> bool:
        """Take in a delta of a block of text."""
        try:
            parts = event.__dict__
            if parts["type"] != "content_block_delta":
                return False
            delta = parts["delta"].__dict__
            return delta["type"] == "text_delta" and self._skimmed(delta["text"])
        except _OTHERWISE:
            return False

    def see(self, event: Any) -> bool:
        """Take in one event; ``message_stop`` is final."""
        kind = event.type
        if kind == "content_block_delta":
            self._delta(event.delta)
        elif kind == "content_block_start":
            name = block_tool_name(event.content_block)
            if name is not None:
                self.tools.append(name)
        elif kind == "message_start":
            self.model = text(fields(event.message).get("model"))
            self._merge(fields(event.message).get("usage"))
        elif kind == "message_delta":
            self._merge(event.usage)
        return bool(kind == "message_stop")

    def _delta(self, delta: Any) -> None:
        kind = delta.type
        if kind == "text_delta":
            content = delta.text
            self.output_bytes += len(content) if content.isascii() else utf8_length(content)
        elif kind == "input_json_delta":
            self._count(delta.partial_json)
        elif kind == "thinking_delta":
            self._count(delta.thinking)

    def _merge(self, usage: Any) -> None:
        """Overwrite with what is reported, never add; a null says nothing."""
        self._block.update({name: value for name, value in fields(usage).items() if value is not None})
        self.usage = anthropic_usage({"usage": self._block})


class EventReader(Reader):
    """Streams of images, speech and transcriptions: usage in the event that ends them."""

    __slots__ = ()

    def see(self, event: Any) -> bool:
        """Take in one event; the one with usage is final."""
        parts = fields(event)
        kind = text(parts.get("type")) or ""
        if "audio.delta" not in kind:
            self._count(parts.get("delta"))
        self.model = self.model or text(parts.get("model"))
        if parts.get("usage") is None:
            return False
        self.usage = openai_usage(event)
        return self.usage is not None


class RunReader(Reader):
    """Assistants runs: usage in the run that the last event carries."""

    __slots__ = ()

    def see(self, event: Any) -> bool:
        """Take in one event; a run with usage is final."""
        parts = fields(event)
        kind, data = text(parts.get("event")) or "", fields(parts.get("data"))
        if kind == "thread.message.delta":
            for block in items(fields(data.get("delta")).get("content")):
                self._count(fields(fields(block).get("text")).get("value"))
        elif kind.startswith("thread.run.") and not kind.startswith("thread.run.step."):
            self.model = text(data.get("model")) or self.model
            self.job = text(data.get("id"))
            usage = openai_usage(data)
            if usage is not None and count(usage.input_tokens) + count(usage.output_tokens) > 0:
                self.usage = usage
                return True
        return False


class AutoReader(Reader):
    """A stream of unknown origin: the first event shows whose it is."""

    __slots__ = ("_as",)

    def __init__(self) -> None:
        super().__init__()
        self._as: Reader | None = None

    def see(self, event: Any) -> bool:
        """Choose the reader by the first event, and keep its account as ours."""
        if self._as is None:
            self._as = _reader_for(fields(event))()
        final = self._as.see(event)
        self.usage, self.output_bytes, self.model = self._as.usage, self._as.output_bytes, self._as.model
        self.tools, self.failed = self._as.tools, self._as.failed
        return final


def _reader_for(event: Any) -> type[Reader]:
    kind = text(event.get("type")) or ""
    if "choices" in event:
        first = items(event["choices"])[:1]
        return CompletionReader if first and "text" in fields(first[0]) else ChatReader
    if kind.startswith("response."):
        return ResponseReader
    if kind.startswith(("message_", "content_block_", "ping")):
        return MessageReader
    return RunReader if text(event.get("event")) else EventReader
