"""OpenAI's embeddings and moderations."""

from __future__ import annotations

import base64
import struct
import zlib
from functools import lru_cache
from typing import Any

from paygent.testing.llm_server._reply import billed, counted
from paygent.testing.llm_server._values import Answer, Json, Request, dumps, json_answer
from paygent.testing.llm_server._words import count_prompt

_DIMENSIONS = {"text-embedding-3-large": 3072}
_TEXT_ONLY: tuple[str, ...] = ("harassment", "harassment/threatening", "hate", "hate/threatening", "illicit")
_TEXT_ONLY += ("illicit/violent", "sexual/minors")
_TEXT_OR_IMAGE: tuple[str, ...] = (
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "violence",
)
_TEXT_OR_IMAGE += ("violence/graphic",)


def embedding(request: Request) -> Answer:
    """Answer ``POST /embeddings``: a unit vector per input, the same one for the same input."""
    inputs = _inputs(request.body.get("input"))
    dimensions = int(request.body.get("dimensions") or _DIMENSIONS.get(request.model, 1536))
    encoded = request.body.get("encoding_format") == "base64"
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": _vector(_axis(each, dimensions), dimensions, encoded),
        }
        for index, each in enumerate(inputs)
    ]
    count = counted(request, count_prompt(inputs), 0)
    block = {"prompt_tokens": count.input, "total_tokens": count.input}
    usage, generated = billed(request, count, block)
    return json_answer({"object": "list", "data": data, "model": request.model, "usage": usage}, generated)


def _inputs(value: Any) -> list[Any]:
    one = not isinstance(value, list) or (value and isinstance(value[0], int))
    return [value or ""] if one else value


def _axis(value: Any, dimensions: int) -> int:
    return zlib.crc32(dumps(value)) % dimensions


@lru_cache(maxsize=64)
def _vector(axis: int, dimensions: int, encoded: bool) -> str | list[float]:
    values = [0.0] * dimensions
    values[axis] = 1.0
    return base64.b64encode(struct.pack(f"<{dimensions}f", *values)).decode() if encoded else values


def moderation(request: Request) -> Answer:
    """Answer ``POST /moderations``: nothing is ever flagged."""
    body = {
        "id": request.new_id("modr-"),
        "model": request.body.get("model") or "omni-moderation-latest",
        "results": [_harmless() for _ in _inputs(request.body.get("input"))],
    }
    return json_answer(body)


def _harmless() -> Json:
    names = _TEXT_ONLY + _TEXT_OR_IMAGE
    kinds = {name: ["text"] if name in _TEXT_ONLY else ["text", "image"] for name in names}
    return {
        "flagged": False,
        "categories": dict.fromkeys(names, False),
        "category_scores": dict.fromkeys(names, 0.0001),
        "category_applied_input_types": kinds,
    }
