"""
Work that the provider does later: batches, background responses and runs.

Who pays is remembered at submit; usage is counted when its results are read, once, from any process.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from paygent.core.usage import Usage
from paygent.instrumentation._fields import fields, items, text
from paygent.instrumentation.operations import KNOWN_ANTHROPIC, KNOWN_OPENAI, Operation, path_of
from paygent.instrumentation.ports import MeterPort
from paygent.instrumentation.raw import Body, content_of
from paygent.instrumentation.readers import Reader
from paygent.instrumentation.results import shape_of
from paygent.instrumentation.streams import Tally, response_of, take_over, tap_response
from paygent.meter.jobs import JobLine

# What a GET must begin with to be looked at at all; the plain forms first, results come with an origin.
WATCHED = {
    "openai": ("/responses/", "/batches", "/files/", "/threads/", "http"),
    "anthropic": ("/v1/messages/batches", "http"),
}
_ENDS = frozenset(("completed", "failed", "incomplete", "cancelled", "expired"))
# As text: compiled when they are first needed.
_RESPONSE = r"/responses/[^/]+"
_RUN = r"/threads/[^/]+/runs/[^/]+"
_BATCHES = r"/batches(/[^/]+)?"
_FILE = r"/files/([^/]+)/content"
_RESULTS = r".*/messages/batches/([^/]+)/results"
_LINES_MAX = 500
_LINKS_KEPT_MAX = 10_000
_linked: set[tuple[str, str]] = set()
# Lines read by streams that were dropped: a finalizer must not report them, the next call does.
unreported: deque[tuple[str, str, list[JobLine]]] = deque()


def answer_of(result: Any) -> Mapping[str, Any]:
    """Return the fields of an answer, parsed or raw; empty where its body has not been read."""
    if shape_of(result) == "model":
        return fields(result)
    response = response_of(result)
    content = content_of(result if response is None else response)
    try:
        return fields(json.loads(content)) if content else {}
    except ValueError:
        return {}


def pending_id(operation: Operation, body: Mapping[str, Any], result: Any) -> str | None:
    """Return the id of the work that *result* says is still going on; ``None`` if it is done."""
    if operation.name != "run" and not body.get("background"):
        return None
    answer = answer_of(result)
    if operation.usage(answer) is not None or answer.get("status") in _ENDS:
        return None
    return text(answer.get("id"))


def watch(meter: MeterPort, provider: str, url: str, result: Any) -> None:
    """Look at the answer of a GET: a job that is done, a file or stream of results, or nothing of ours."""
    report_unreported(meter)
    path = path_of(url)
    if provider == "anthropic":
        found = re.fullmatch(_RESULTS, path)
        if found is not None:
            _count_lines_of(meter, provider, found[1], result)
        return
    found = re.search(_FILE, path)
    if found is not None:
        _count_lines_of(meter, provider, found[1], result)
    elif re.search(_BATCHES, path):
        link(meter, result)
    elif re.search(_RESPONSE, path) or re.search(_RUN, path):
        _count_polled(meter, path, result)


def link(meter: MeterPort, result: Any) -> None:
    """Tell the meter which files hold the results of a batch, or of a page of batches."""
    answer = answer_of(result)
    for batch in items(answer.get("data")) or (answer,):
        parts = fields(batch)
        job_id = text(parts.get("id"))
        for name in ("output_file_id", "error_file_id"):
            alias = text(parts.get(name))
            if job_id and alias and (job_id, alias) not in _linked:
                meter.link_job("openai", job_id, alias)
                if len(_linked) < _LINKS_KEPT_MAX:
                    _linked.add((job_id, alias))


class _JobCall(nullcontext[None]):
    """Stands in for the bracket of a call where a stream tells of a job: counts the job."""

    def __init__(self, meter: MeterPort, reader: Reader) -> None:
        super().__init__()
        self._meter = meter
        self._reader = reader

    def finish(self, usage: Usage, response_model: str | None = None, tools: Sequence[str] = ()) -> None:
        """Count the job once its final usage is known."""
        job_id = self._reader.job
        if job_id is not None:
            self._meter.job_results("openai", job_id, [JobLine(job_id, response_model, usage, tuple(tools))])

    def finish_estimated(self, *given: Any, **named: Any) -> None:
        """Left early: the job goes on, and is counted when it is read again."""

    def fail(self, error: BaseException | None) -> None:
        """Nothing was counted."""

    def defer(self) -> None:
        """Nothing is held."""


def _count_polled(meter: MeterPort, path: str, result: Any) -> None:
    operation = KNOWN_OPENAI["/responses" if "/responses/" in path else "/threads/runs"]
    if shape_of(result) == "stream":
        reader = operation.reader()
        take_over(result, Tally(_JobCall(meter, reader), reader))
        return
    answer = answer_of(result)
    job_id, usage = text(answer.get("id")), operation.usage(answer)
    is_job = operation.name == "run" or answer.get("background") is True
    if job_id is not None and usage is not None and is_job and answer.get("status") in _ENDS:
        line = JobLine(job_id, text(answer.get("model")), usage, operation.tools(answer))
        meter.job_results("openai", job_id, [line])


# --- results, line by line --------------------------------------------------------------------------------


def line_of(provider: str, value: Any) -> JobLine | None:
    """Return one line of a result file as it counts; ``None`` for a request that failed."""
    line = fields(value)
    key = text(line.get("custom_id"))
    if key is None:
        return None
    if provider == "anthropic":
        answer, operation = fields(line.get("result")).get("message"), KNOWN_ANTHROPIC["/v1/messages"]
    else:
        answer, operation = fields(line.get("response")).get("body"), KNOWN_OPENAI["/chat/completions"]
    usage = operation.usage(answer) if answer is not None else None
    if usage is None:
        return None
    model = text(fields(answer).get("model"))
    return JobLine(key, model, usage._replace(batch=True), operation.tools(answer))


def _lines_in(provider: str, content: bytes) -> Iterable[JobLine]:
    for raw in content.splitlines():
        try:
            line = line_of(provider, json.loads(raw)) if raw.strip() else None
        except ValueError:  # no JSON: not a result file, or cut
            continue
        if line is not None:
            yield line


class LineReader(Reader):
    """Reads along a stream of results: hands on what was read, some lines at a time."""

    __slots__ = ("_job_id", "_lines", "_meter", "_provider", "_step")

    def __init__(self, meter: MeterPort, provider: str, job_id: str) -> None:
        super().__init__()
        self._meter = meter
        self._provider = provider
        self._job_id = job_id
        self._lines: list[JobLine] = []
        self._step = 1

    def see(self, event: Any) -> bool:
        """Take in one result; the first is handed on at once, then more and more at a time."""
        line = line_of(self._provider, event)
        if line is not None:
            self._lines.append(line)
            if len(self._lines) >= self._step:
                self._step = min(2 * self._step, _LINES_MAX)
                self.hand_on()
        return False

    def hand_on(self) -> None:
        """Report the lines read so far."""
        lines, self._lines = self._lines, []
        if lines:
            self._meter.job_results(self._provider, self._job_id, lines)

    def leave_for_later(self) -> None:
        """Keep the lines for the next call to report; for finalizers."""
        lines, self._lines = self._lines, []
        if lines:
            unreported.append((self._provider, self._job_id, lines))


class LineTally(Tally):
    """The settlement of a stream of results: there is no call, only lines."""

    __slots__ = ("_lines",)

    def __init__(self, reader: LineReader, meter: MeterPort) -> None:
        super().__init__(_JobCall(meter, reader), reader)
        self._lines = reader

    def finish(self) -> None:
        """Report the lines at the end."""
        self._lines.hand_on()

    def leave(self) -> None:
        """Report the lines read before the stream was left."""
        self._lines.hand_on()

    def drop(self) -> None:
        """Keep the lines for the next call to report."""
        self._lines.leave_for_later()


def report_unreported(meter: MeterPort) -> None:
    """Report the lines that dropped streams have left."""
    while unreported:
        provider, job_id, lines = unreported.popleft()
        meter.job_results(provider, job_id, lines)


def _count_lines_of(meter: MeterPort, provider: str, job_id: str, result: Any) -> None:
    if shape_of(result) == "decoder":
        take_over(result, LineTally(LineReader(meter, provider, job_id), meter))
        return
    if isinstance(result, str):
        _report_content(meter, provider, job_id, result.encode("utf-8", "replace"))
        return
    response = response_of(result)
    response = result if response is None else response
    content = content_of(response)
    if content is not None:
        _report_content(meter, provider, job_id, content)
    elif hasattr(response, "stream"):
        _count_as_read(meter, provider, job_id, response)


def _report_content(meter: MeterPort, provider: str, job_id: str, content: bytes) -> None:
    """Report a whole result file; any other file is told by its first line, and not read through."""
    if b'"custom_id"' not in content[:4096]:
        return
    lines: list[JobLine] = []
    for line in _lines_in(provider, content):
        lines.append(line)
        if len(lines) >= _LINES_MAX:
            meter.job_results(provider, job_id, lines)
            lines = []
    if lines:
        meter.job_results(provider, job_id, lines)


def _count_as_read(meter: MeterPort, provider: str, job_id: str, response: Any) -> None:
    """Count a result file that the caller reads in pieces, when he closes it."""
    body, encoding = Body(), text(response.headers.get("content-encoding"))

    def closed() -> None:
        _report_content(meter, provider, job_id, body.content(encoding, type(response)))

    tap_response(response, closed, body.feed)
