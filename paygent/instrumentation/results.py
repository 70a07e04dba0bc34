"""
The shapes in which the SDKs hand back one and the same answer, and how each is settled.

A parsed model (or dictionary); a ``Stream``; a raw wrapper already read; a raw wrapper of a stream; a
response not read yet (``with_streaming_response``). Frameworks get the last three most of the time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from paygent.core.usage import Usage, is_empty
from paygent.instrumentation._fields import fields, text
from paygent.instrumentation.operations import Operation
from paygent.instrumentation.ports import CallPort
from paygent.instrumentation.raw import content_of, settle_content, settle_events, take_raw
from paygent.instrumentation.requests import said_bytes
from paygent.instrumentation.streams import Tally, response_of, take_over

Shape = Literal["model", "stream", "raw", "decoder", "binary", "response"]

_SHAPES: dict[str, Shape] = {
    "Stream": "stream",
    "AsyncStream": "stream",
    "LegacyAPIResponse": "raw",
    "BaseAPIResponse": "raw",
    "JSONLDecoder": "decoder",
    "AsyncJSONLDecoder": "decoder",
    "HttpxBinaryResponseContent": "binary",
    "BinaryAPIResponse": "binary",
    "AsyncBinaryAPIResponse": "binary",
}
_LIBRARIES = ("httpx", "httpx2")
_SDKS = ("openai", "anthropic")
_SHAPES_KEPT_MAX = 4096
_shapes: dict[type, Shape] = {}


def shape_of(result: Any) -> Shape:
    """Return the shape of *result*, told by its class; nothing is imported to find out."""
    kind = type(result)
    shape = _shapes.get(kind)
    if shape is None:
        shape = _classify(kind)
        if len(_shapes) < _SHAPES_KEPT_MAX:
            _shapes[kind] = shape
    return shape


def _classify(kind: type) -> Shape:
    for base in kind.__mro__:
        library = base.__module__.partition(".")[0]
        if library in _SDKS and base.__name__ in _SHAPES:
            return _SHAPES[base.__name__]
        if library in _LIBRARIES and base.__name__ == "Response":
            return "response"
    return "model"


def settle(
    call: CallPort, operation: Operation, result: Any, units: Usage | None = None, *, hide: bool = False
) -> None:
    """
    Settle *call* by *result*, or defer it to the stream that *result* is.

    Args:
        units: What the request itself says of other units than tokens; used where the answer says nothing.
        hide: The chunk with usage was asked for by us: the caller does not see it.
    """
    shape = shape_of(result)
    if units is not None and units.images:
        operation = _knowing(operation, units)
    if shape == "model":
        answer = fields(result)  # once, for all three readings
        usage = operation.usage(answer)
        if usage is not None and (usage.input_tokens or not is_empty(usage)):
            model = answer.get("model")
            if model.__class__ is not str or not model:
                model = text(model)
            call.finish(usage, model, operation.tools(answer))
        else:
            _settle_by_units(call, operation, units, text(answer.get("model")), said_bytes(answer))
    elif shape == "stream":
        if take_over(result, Tally(call, operation.reader(), units, hide=hide)):
            call.defer()
    elif shape == "decoder":
        _settle_by_units(call, operation, units, None)
    else:
        _settle_unparsed(call, operation, result, units)


def _knowing(operation: Operation, units: Usage) -> Operation:
    """Return *operation* with a reader that knows what was asked for: an answer may only show how many."""

    def usage(answer: Any) -> Usage | None:
        read = operation.usage(answer)
        if read is None or not read.images or read.service_tier is not None:
            return read
        return read._replace(service_tier=units.service_tier)

    return replace(operation, usage=usage)


def _settle_by_units(
    call: CallPort, operation: Operation, units: Usage | None, model: str | None, output_bytes: int = 0
) -> None:
    if units is not None and operation.name in ("speech", "video", "images"):
        call.finish(units, model)
    else:
        call.finish_estimated(units, output_bytes, model)


def _settle_unparsed(call: CallPort, operation: Operation, result: Any, units: Usage | None) -> None:
    if operation.name == "speech" and units is not None and not _is_events(result):
        call.finish(units)
        return
    response, is_stream = _http_response_of(result), _is_stream(result)
    content = content_of(response)
    if content is None:
        if not take_raw(result, call, operation, units, is_stream=is_stream):
            call.finish_estimated(units, 0)
    elif is_stream:
        settle_events(call, operation, content, units)
    elif not settle_content(call, operation, content, units):
        call.finish_estimated(units, 0)


def _http_response_of(result: Any) -> Any:
    response = response_of(result)
    return result if response is None else response


def _is_stream(raw: Any) -> bool:
    return bool(getattr(raw, "_is_sse_stream", False) or getattr(raw, "_stream", False)) or _is_events(raw)


def _is_events(raw: Any) -> bool:
    """Return whether the answer is a stream of server-sent events."""
    return str(_http_response_of(raw).headers.get("content-type", "")).startswith("text/event-stream")
