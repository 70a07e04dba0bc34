"""
The language model: what it reads, and the text it writes.

A token is a run of word characters or one punctuation mark, so that a reader can count them by eye and no
vocabulary is needed. Text is deterministic: the same request always gets the same answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import cycle, islice, pairwise
from typing import Any

IMAGE_TOKENS = 85  # what one image in a prompt counts, whatever its size
SCHEMA_DEPTH_MAX = 8  # recursive schemas end in null

_TOKEN = re.compile(r"\w+|[^\w\s]")
_PIECE = re.compile(r"\s*(?:\w+|[^\w\s])")
# Keys whose values the model does not read: names of kinds, ids and binary data.
_UNREAD = frozenset(
    {"type", "role", "id", "data", "file_data", "url", "detail", "media_type", "cache_control"}
)
_IMAGES = frozenset({"image", "image_url", "input_image"})

_STORY = (
    "Happy to help! Here is a short plan that works well: start small, measure what you have, and change "
    "one thing at a time. After each step, look at the numbers before you take the next one. "
    "If something surprises you, write it down, because that is where the interesting work begins. "
    "Keep the first version simple, show it to somebody early, and let their questions guide you. "
    "Good tools make this easier, but a clear goal matters more than any tool. "
    "When the plan stops fitting, throw it away and make a better one. "
    "Shall we go through the details together, or would you like an example first? "
)
REPLY_TOKENS = len(_TOKEN.findall(_STORY[: _STORY.index("After")]))  # the first two sentences


def count_tokens(text: str) -> int:
    """Count the tokens of *text*."""
    return len(_TOKEN.findall(text))


def pieces_of(text: str) -> tuple[str, ...]:
    """Split *text* into its tokens, each with the space before it; joined they are the text again."""
    return tuple(_PIECE.findall(text))


@lru_cache(maxsize=256)
def reply_pieces(length: int) -> tuple[str, ...]:
    """Return a friendly answer of exactly *length* tokens that ends like a sentence."""
    pieces = list(islice(cycle(pieces_of(_STORY + "\n")), length))
    if len(pieces) > 1 and pieces[-2][-1].isalnum() and pieces[-1] not in (".", "!", "?"):
        pieces[-1] = "."
    return tuple(pieces)


def count_prompt(*parts: Any) -> int:
    """Count the tokens of everything a model reads in *parts* (texts, messages, tools; nested at will)."""
    return sum(_count(part) for part in parts)


def _count(value: Any) -> int:
    if isinstance(value, str):
        return count_tokens(value)
    if isinstance(value, Mapping):
        if value.get("type") in _IMAGES:
            return IMAGE_TOKENS
        return sum(_count(item) for key, item in value.items() if key not in _UNREAD)
    if isinstance(value, Sequence):
        # A prompt may be a list of token numbers: each is one token.
        return sum(1 if isinstance(item, int) else _count(item) for item in value)
    return 0


def texts_of(value: Any) -> Iterator[str]:
    """Yield the texts in *value*: a text, a message, or any nesting of them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key in ("content", "text", "input"):
            yield from texts_of(value.get(key))
    elif isinstance(value, Sequence):
        for item in value:
            yield from texts_of(item)


def grouped(pieces: Sequence[str], groups: int | None) -> list[str]:
    """Join *pieces* into that many texts of about one length; ``None``: one text per token."""
    if groups is None or groups >= len(pieces):
        return list(pieces)
    count = max(1, groups)
    edges = [len(pieces) * step // count for step in range(count + 1)]
    return ["".join(pieces[start:end]) for start, end in pairwise(edges)]


def json_for(schema: Mapping[str, Any]) -> str:
    """Return a JSON text that fits *schema*: every property present, the first choice everywhere."""
    return json.dumps(_sample(schema, schema, 0))


def _sample(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Any:
    if depth > SCHEMA_DEPTH_MAX:
        return None
    if "$ref" in schema:
        return _sample(_resolved(schema["$ref"], root), root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return _sample(schema[key][0], root, depth + 1)
    return _sample_of_type(schema, root, depth)


def _sample_of_type(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: _sample(part, root, depth + 1) for name, part in properties.items()}
    if kind == "array":
        items = schema.get("items", {})
        return [_sample(items, root, depth + 1) for _ in range(max(1, schema.get("minItems", 1)))]
    if kind in ("integer", "number"):
        return schema.get("minimum", 1)
    return {"boolean": True, "null": None}.get(kind, "a good start")


def _resolved(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Any = root
    for step in reference.removeprefix("#").split("/"):
        found = found.get(step, {}) if step else found
    return found if isinstance(found, Mapping) else {}
