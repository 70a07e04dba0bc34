"""
How an answer should misbehave: settings of the server, and headers of one request that go before them.

======================== =====================================================================================
``x-llm-latency-ms``       wait before the first byte
``x-llm-chunk-latency-ms`` wait before each further chunk of a stream
``x-llm-chunks``           how many text chunks a stream has (without it: one per token)
``x-llm-reply-tokens``     length of the text, where the request's own maximum allows it
``x-llm-status``           fail with this HTTP status
``x-llm-fail-times``       fail only that many attempts of a call (as the SDK's retry count says)
``x-llm-retry-after``      the ``Retry-After`` of a failure, in seconds
``x-llm-cut-after``        cut the connection after that many chunks; 0 on a plain answer: no byte at all
``x-llm-hang``             any value: never answer
``x-llm-usage``            ``input,output``: bill these tokens instead of the counted ones
``x-llm-usage-json``       answer this very JSON as the usage block (``null``: a server that reports none)
``x-llm-cached-tokens``    so many input tokens were read from the cache
``x-llm-cache-write-tokens`` so many input tokens were written to the cache
``x-llm-reasoning-tokens`` so many output tokens of reasoning, on top of the text
======================== =====================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from paygent.testing.llm_server._words import REPLY_TOKENS, pieces_of, reply_pieces

PREFIX = "x-llm-"
COUNTED = object()  # the usage block is the counted one


@dataclass(frozen=True, slots=True)
class Controls:
    """How answers are paced, sized, billed and broken; the fields are those of the headers above."""

    latency_s: float = 0.0
    chunk_latency_s: float = 0.0
    chunks: int | None = None
    reply_tokens: int = REPLY_TOKENS
    status: int | None = None
    fail_times: int | None = None
    retry_after_s: float | None = None
    cut_after: int | None = None
    hang: bool = False
    usage: tuple[int, int] | None = None
    usage_json: Any = COUNTED
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    text: str | None = None  # say just this

    def with_headers(self, headers: Mapping[str, str]) -> Controls:
        """
        Return these controls as changed by the ``x-llm-*`` *headers* (lower-case names) of one request.

        Raises:
            ValueError: A header's value cannot be read.
        """
        changes = {}
        for name, value in headers.items():
            if name.startswith(PREFIX):
                field, read = _HEADERS[name] if name in _HEADERS else _unknown(name)
                changes[field] = read(value)
        return replace(self, **changes) if changes else self

    def reply_pieces(self) -> tuple[str, ...]:
        """What the model says, token by token."""
        return reply_pieces(self.reply_tokens) if self.text is None else tuple(pieces_of(self.text))

    def fails(self, headers: Mapping[str, str]) -> bool:
        """Whether this attempt fails; the SDKs count their attempts in ``x-stainless-retry-count``."""
        if self.status is None:
            return False
        attempt = int(headers.get("x-stainless-retry-count", "0"))
        return self.fail_times is None or attempt < self.fail_times


def _seconds(milliseconds: str) -> float:
    return float(milliseconds) / 1000


def _pair(text: str) -> tuple[int, int]:
    first, second = text.split(",")
    return int(first), int(second)


def _yes(_text: str) -> bool:
    return True


def _unknown(name: str) -> tuple[str, Callable[[str], Any]]:
    raise ValueError(f"unknown control header {name}; there are {', '.join(sorted(_HEADERS))}")


_HEADERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "x-llm-latency-ms": ("latency_s", _seconds),
    "x-llm-chunk-latency-ms": ("chunk_latency_s", _seconds),
    "x-llm-chunks": ("chunks", int),
    "x-llm-reply-tokens": ("reply_tokens", int),
    "x-llm-status": ("status", int),
    "x-llm-fail-times": ("fail_times", int),
    "x-llm-retry-after": ("retry_after_s", float),
    "x-llm-cut-after": ("cut_after", int),
    "x-llm-hang": ("hang", _yes),
    "x-llm-usage": ("usage", _pair),
    "x-llm-usage-json": ("usage_json", json.loads),
    "x-llm-cached-tokens": ("cached_tokens", int),
    "x-llm-cache-write-tokens": ("cache_write_tokens", int),
    "x-llm-reasoning-tokens": ("reasoning_tokens", int),
}
