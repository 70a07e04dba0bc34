"""
The refusal in the words of the APIs that apps proxy, so that their SDK clients raise their usual errors.

The problem object goes along under ``problem``: clients ignore what they do not know, and a front end finds
there what it needs.

Sources: the error bodies that ``openai.APIError`` and ``anthropic.APIError`` read, and their error events.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal

ErrorFormat = Literal["problem", "openai", "anthropic"]
FORMATS: tuple[ErrorFormat, ...] = ("problem", "openai", "anthropic")

_OPENAI_TYPES = {
    "no_user": "invalid_request_error",
    "busy": "rate_limit_error",
    "unavailable": "server_error",
}
_ANTHROPIC_TYPES = {401: "authentication_error", 402: "billing_error", 429: "rate_limit_error"}


def body(problem: Mapping[str, Any], error_format: ErrorFormat) -> bytes:
    """Return the JSON body that says *problem*."""
    return _json(_SHAPES[error_format](problem))


def event(problem: Mapping[str, Any], error_format: ErrorFormat) -> bytes:
    """
    Return the last event of a server-sent stream that had already begun.

    The empty lines before it end an event that was cut off in the middle. OpenAI's streams have no names of
    events: an error is data with an ``error`` in it.
    """
    name = b"" if error_format == "openai" else b"event: error\n"
    told = _SHAPES[error_format](problem)
    if error_format == "problem":
        told = {"type": "error", "problem": problem["type"], **{k: v for k, v in told.items() if k != "type"}}
    return b"\n\n" + name + b"data: " + _json(told) + b"\n\n"


def _openai(problem: Mapping[str, Any]) -> dict[str, Any]:
    error = {
        "message": problem["detail"],
        "type": _OPENAI_TYPES.get(problem["code"], "insufficient_quota"),
        "param": None,
        "code": problem["code"],
        "problem": dict(problem),
    }
    return {"error": error}


def _anthropic(problem: Mapping[str, Any]) -> dict[str, Any]:
    kind = _ANTHROPIC_TYPES.get(problem["status"], "api_error")
    return {
        "type": "error",
        "error": {"type": kind, "message": problem["detail"], "problem": dict(problem)},
        "request_id": None,
    }


_Shape = Callable[[Mapping[str, Any]], dict[str, Any]]
_SHAPES: dict[ErrorFormat, _Shape] = {"problem": dict, "openai": _openai, "anthropic": _anthropic}


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
