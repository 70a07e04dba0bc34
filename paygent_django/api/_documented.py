"""How bodies that are read by hand appear in the API's description of itself."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


def batch_of(model: type[BaseModel]) -> dict[str, Any]:
    """A request body that is an array of *model*."""
    schema = model.model_json_schema()
    items = _inlined(schema, schema.pop("$defs", {}))
    content = {"application/json": {"schema": {"type": "array", "items": items}}}
    return {"requestBody": {"required": True, "content": content}}


def _inlined(value: Any, known: dict[str, Any]) -> Any:
    """*value* with what it refers to in its place."""
    if isinstance(value, dict):
        if "$ref" in value:
            return _inlined(known[value["$ref"].rpartition("/")[2]], known)
        return {name: _inlined(member, known) for name, member in value.items()}
    return [_inlined(member, known) for member in value] if isinstance(value, list) else value
