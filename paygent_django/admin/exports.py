"""Events as CSV and JSON, and all of one user, streamed; what a spreadsheet would run stays text."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from decimal import Decimal
from typing import Any

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.core.serializers.json import DjangoJSONEncoder
from django.http import HttpRequest, StreamingHttpResponse

from paygent.core.plan import NUSD_PER_USD
from paygent.core.windows import from_us
from paygent_django.admin.paging import page_of
from paygent_django.models import EndUser, GateEvent, UsageEvent
from paygent_django.services._base import rows
from paygent_django.services.users import about_user
from paygent_django.services.values import event_as_dict, gate_as_dict

BATCH = 2000
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_COPIED = (
    "model",
    "request_model",
    "response_model",
    "provider",
    "operation",
    "tag",
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_write_input_tokens",
    "reasoning_output_tokens",
)
_TOLD = ("source", "estimated", "rate_source", "corrects", "session_id", "description")
COLUMNS = (
    "id", "timestamp", "user_id", "user_name", "plan", *_COPIED, "cost_usd", "cost_nusd", *_TOLD, "metadata"
)  # fmt: skip


def as_text(value: Any) -> Any:
    """
    A cell that no spreadsheet takes for a formula: text that begins like one gets an apostrophe in front.

    Numbers stay numbers, also below zero. Source: OWASP, CSV injection.
    """
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value).lower()
    if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA):
        return "'" + value
    return value


def record_of(one: UsageEvent) -> dict[str, Any]:
    """An event with the names of its user and plan; the cost in dollars is exact."""
    return {
        "id": one.event_id,
        "timestamp": from_us(one.timestamp_us).isoformat(),
        "user_id": one.user.external_user_id,
        "user_name": one.user.name,
        "plan": one.plan.name if one.plan else None,
        **{name: getattr(one, name) for name in _COPIED},
        "cost_usd": format(Decimal(one.cost_nusd) / NUSD_PER_USD, "f"),
        "cost_nusd": one.cost_nusd,
        **{name: getattr(one, name) for name in _TOLD},
        "metadata": one.metadata,
    }


def batches(found: Any) -> Iterator[list[Any]]:
    """
    All rows of *found*, the newest first, some thousand at a time.

    Each batch begins after the one before it: no cursor stays open in the database, and no copy is made.
    """
    cursor = None
    while True:
        page = page_of(found, cursor, by="timestamp_us", size=BATCH)
        if page.rows:
            yield page.rows
        cursor = page.older
        if cursor is None:
            return


class _Line:
    """What ``csv.writer`` writes to: it hands the line back."""

    def write(self, line: str) -> str:
        return line


def csv_lines(events: Any) -> Iterator[str]:
    """The lines of a CSV file, with a mark at its start by which spreadsheets know that it is UTF-8."""
    write: Callable[[Iterable[Any]], Any] = csv.writer(_Line()).writerow
    yield "\ufeff" + str(write(COLUMNS))
    for batch in batches(_with_names(events)):
        yield "".join(str(write(_cells(one))) for one in batch)


def _cells(one: UsageEvent) -> list[Any]:
    record = record_of(one)
    record["metadata"] = json.dumps(one.metadata, ensure_ascii=False) if one.metadata else ""
    # decimal text, but a number to a spreadsheet: a refund must not become text
    return [value if name == "cost_usd" else as_text(value) for name, value in record.items()]


def json_lines(events: Any) -> Iterator[str]:
    """The parts of a JSON array."""
    return _array(_with_names(events), record_of)


def user_lines(user: EndUser) -> Iterator[str]:
    """The parts of a JSON object: everything that is kept of one user, however many events he has."""
    head = json.dumps(about_user(user), cls=DjangoJSONEncoder, indent=2).removesuffix("\n}")
    return itertools.chain(
        [head, ',\n  "events": '],
        _array(rows(UsageEvent).filter(user=user), event_as_dict),
        [',\n  "gate_events": '],
        _array(rows(GateEvent).filter(user=user), gate_as_dict),
        ["}\n"],
    )


def _with_names(events: Any) -> Any:
    return events.select_related("user", "plan")


def _array(found: Any, record: Callable[[Any], dict[str, Any]]) -> Iterator[str]:
    separator = "["
    for batch in batches(found):
        yield separator + ",\n".join(
            json.dumps(record(one), ensure_ascii=False, default=str) for one in batch
        )
        separator = ",\n"
    yield "[]\n" if separator == "[" else "]\n"


FORMATS: dict[str, tuple[str, Callable[[Any], Iterator[str]]]] = {
    "csv": ("text/csv; charset=utf-8", csv_lines),
    "json": ("application/json", json_lines),
}


def streamed(request: HttpRequest, events: Any, kind: str) -> StreamingHttpResponse:
    """Answer with *events* as a file; *kind* is one of ``FORMATS``."""
    content_type, lines = FORMATS[kind]
    return _file(request, lines(events), f"paygent-events.{kind}", content_type)


def user_file(request: HttpRequest, user: EndUser) -> StreamingHttpResponse:
    """Answer with everything that is kept of one user as a file of JSON."""
    return _file(request, user_lines(user), f"paygent-user-{user.uuid}.json", "application/json")


def _file(request: HttpRequest, lines: Iterator[str], name: str, content_type: str) -> StreamingHttpResponse:
    made: Any = _awaited(lines) if isinstance(request, ASGIRequest) else lines
    answer = StreamingHttpResponse(made, content_type=content_type)
    answer["Content-Disposition"] = f'attachment; filename="{name}"'
    answer["Cache-Control"] = "no-store, private"
    answer["X-Content-Type-Options"] = "nosniff"
    return answer


async def _awaited(lines: Iterator[str]) -> AsyncIterator[str]:
    """The same lines, each made in the thread that uses the database."""
    following = sync_to_async(lambda: next(lines, None), thread_sensitive=True)
    while (line := await following()) is not None:
        yield line
