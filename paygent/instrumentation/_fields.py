"""Read fields of whatever a provider's answer comes as: an SDK model, a dictionary, or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

_NOTHING: dict[str, Any] = {}


def fields(value: Any) -> Mapping[str, Any]:
    """
    Return the fields of *value* as a mapping, empty where it has none.

    Reads ``__dict__`` instead of attributes: for a field that a model does not declare, pydantic's attribute
    access raises through Python code, which costs more than all the rest. Undeclared fields of an answer live
    in ``__pydantic_extra__``.
    """
    if type(value) is dict:
        return value
    try:
        extra = value.__pydantic_extra__
        declared: dict[str, Any] = value.__dict__
    except AttributeError:
        return _plain_fields(value)
    return {**declared, **extra} if extra else declared


def _plain_fields(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    declared: Mapping[str, Any] = getattr(value, "__dict__", _NOTHING)
    return declared


def items(value: Any) -> list[Any] | tuple[Any, ...]:
    """Return *value* if it is a list or tuple, else an empty tuple."""
    return value if isinstance(value, (list, tuple)) else ()


def count(value: Any) -> int:
    """Return *value* as a whole number; what is no number (``None``, text, NaN) counts as 0."""
    if type(value) is int:
        return value
    if isinstance(value, float) and isfinite(value):
        return int(value)
    return 0


def text(value: Any) -> str | None:
    """Return *value* if it is non-empty text, else ``None``."""
    return value if isinstance(value, str) and value else None


def utf8_length(value: str) -> int:
    """Return the bytes of *value* in UTF-8; never raises, also not on a lone surrogate."""
    return len(value) if value.isascii() else len(value.encode("utf-8", "replace"))


class Loose:
    """A JSON object whose missing fields read as ``None``: what readers of models see for raw events."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return None


def loose(value: Any) -> Any:
    """Return *value* (a model, a dictionary, a list of them) with every object made :class:`Loose`."""
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    if isinstance(value, (list, tuple)):
        return [loose(item) for item in value]
    return Loose({str(name): loose(item) for name, item in fields(value).items()})
