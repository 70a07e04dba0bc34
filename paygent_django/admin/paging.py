"""Pages of long tables: each begins after the last row of the one before it, so nothing is counted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode

from django.db.models import Q

_CURSOR = re.compile(r"(-?\d{1,19})\.(\d{1,19})")


class Cursor(NamedTuple):
    """Where a page ended: the value of its last row by which it is sorted, and its key."""

    value: int
    pk: int

    def __str__(self) -> str:
        return f"{self.value}.{self.pk}"


class Page(NamedTuple):
    """Some rows, and where the next page begins (``None``: nothing follows)."""

    rows: list[Any]
    older: Cursor | None


def cursor_of(text: str | None) -> Cursor | None:
    """The cursor of an address; nonsense is the first page."""
    match = _CURSOR.fullmatch(text or "")
    return Cursor(int(match[1]), int(match[2])) if match else None


def key_of(text: str | None) -> int | None:
    """The primary key of an address; ``None`` for what cannot be one."""
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 19 else None


def page_of(queryset: Any, cursor: Cursor | None, *, by: str, size: int = 50) -> Page:
    """
    One page of *queryset*, the largest *by* first.

    The first condition is one that an index on *by* answers; the second one tells equal rows apart.
    """
    if cursor is not None:
        queryset = queryset.filter(
            Q(**{f"{by}__lt": cursor.value}) | Q(pk__lt=cursor.pk), **{f"{by}__lte": cursor.value}
        )
    rows = list(queryset.order_by(f"-{by}", "-pk")[: size + 1])
    if len(rows) <= size:
        return Page(rows, None)
    last = rows[size - 1]
    return Page(rows[:size], Cursor(getattr(last, by), last.pk))


def address(given: Mapping[str, str], **changes: object) -> str:
    """The query of a link: *given* with *changes*; ``None`` takes a name out."""
    merged = {**given, **{name: None if value is None else str(value) for name, value in changes.items()}}
    return "?" + urlencode({name: value for name, value in merged.items() if value not in (None, "")})
