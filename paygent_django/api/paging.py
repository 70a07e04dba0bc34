"""Pages of rows: an opaque cursor that says where the last page ended."""

from __future__ import annotations

import base64
import binascii
from http import HTTPStatus
from typing import Annotated, Any

from pydantic import Field

from paygent_django.api.problems import Problem

Limit = Annotated[int, Field(ge=1, le=500)]
LongLimit = Annotated[int, Field(ge=1, le=1000)]
_NUMBER_MAX = 1 << 62


def page(rows: Any, order: tuple[str, ...], limit: int, cursor: str | None) -> tuple[list[Any], str | None]:
    """
    One page of the query *rows*.

    Args:
        order: One or two integer columns, the last of them unique; all ascending, or all with a minus.
        cursor: Where the page before ended.

    Returns:
        The rows, and the cursor of the next page; ``None`` after the last one.
    """
    names = [name.lstrip("-") for name in order]
    if cursor is not None:
        rows = rows.filter(_after(names, _read(cursor, len(names)), falls=order[0].startswith("-")))
    found = list(rows.order_by(*order)[: limit + 1])
    if len(found) <= limit:
        return found, None
    return found[:limit], _write([getattr(found[limit - 1], name) for name in names])


def _after(names: list[str], values: list[int], *, falls: bool) -> Any:
    from django.db.models import Q

    compare = "lt" if falls else "gt"
    chosen = Q(**{f"{names[0]}__{compare}": values[0]})
    if len(names) > 1:
        chosen |= Q(**{names[0]: values[0], f"{names[1]}__{compare}": values[1]})
    return chosen


def _write(values: list[int]) -> str:
    return base64.urlsafe_b64encode(".".join(map(str, values)).encode()).decode().rstrip("=")


def _read(cursor: str, count: int) -> list[int]:
    try:
        text = base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4)).decode()
        values = [int(part) for part in text.split(".")]
    except (binascii.Error, ValueError):
        values = []
    if len(values) != count or any(abs(value) > _NUMBER_MAX for value in values):
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "is not a cursor of this list", "cursor")
    return values
