"""
Meter raw and streaming responses: wrappers whose body the caller may parse, read as bytes, or leave.

Nothing here reads a body before the caller does. What passes is kept, within bounds, and read through when
the response is closed; a stream that the caller parses is read along as any other, and the copy is dropped.
"""

from __future__ import annotations

import copy
import json
import zlib
from contextlib import suppress
from typing import Any

from paygent.core.usage import Usage, is_empty
from paygent.instrumentation._fields import Loose, text
from paygent.instrumentation._report import report
from paygent.instrumentation.operations import Operation
from paygent.instrumentation.ports import CallPort
from paygent.instrumentation.readers import Reader
from paygent.instrumentation.requests import said_bytes
from paygent.instrumentation.streams import Tally, response_of, take_over, tap_response

# Of a longer body, the head and the tail are kept: a usage block is near one end or the other.
_DECODED_MAX = 1 << 25  # what is larger is no usage block
_DECODE_STEP = 1024
_KEPT_HEAD = 256 * 1024
_KEPT_TAIL = 768 * 1024
# Bytes of a server-sent event per byte of the text it brings, at the least.
_EVENT_OVERHEAD = 8


class Body:
    """The bytes of a body as they pass, head and tail; ``length`` counts all of them."""

    __slots__ = ("_head", "_tail", "length")

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self.length = 0

    def feed(self, block: bytes) -> None:
        """Take in the next bytes."""
        self.length += len(block)
        room = _KEPT_HEAD - len(self._head)
        if room > 0:
            self._head += block[:room]
            block = block[room:]
        if block:
            self._tail += block
            if len(self._tail) > 2 * _KEPT_TAIL:
                del self._tail[:-_KEPT_TAIL]

    def content(self, encoding: str | None, kind: type) -> bytes:
        """
        Return what was kept, decoded from *encoding*; empty where this is not possible.

        *kind* is the response's class: its library can decode whatever it has asked the server for.
        """
        kept = bytes(self._head + self._tail)
        if not encoding or encoding == "identity":
            return kept
        if encoding in ("gzip", "deflate"):
            with suppress(zlib.error):
                return zlib.decompressobj(47).decompress(kept, _DECODED_MAX)
            return b""
        with suppress(Exception):  # an HTTP library's own errors; what cannot be read counts by its length
            return _decoded(kind, encoding, kept)
        return b""


def _decoded(kind: Any, encoding: str, data: bytes) -> bytes:
    """Decode *data* as a response of *kind* does, in small steps: a little of it may become very much."""
    steps = (data[at : at + _DECODE_STEP] for at in range(0, len(data), _DECODE_STEP))
    decoded = bytearray()
    for block in kind(200, headers={"content-encoding": encoding}, content=steps).iter_bytes():
        decoded += block
        if len(decoded) > _DECODED_MAX:
            break
    return bytes(decoded)


class RawTally(Tally):
    """The settlement of a response that nobody has parsed yet."""

    __slots__ = ("_encoding", "_is_stream", "_kind", "_operation", "body", "parsed")

    def __init__(
        self, call: CallPort, operation: Operation, units: Usage | None, response: Any, is_stream: bool
    ) -> None:
        super().__init__(call, operation.reader(), units)
        self._operation = operation
        self._is_stream = is_stream
        self._kind = type(response)
        self._encoding = text(response.headers.get("content-encoding"))
        self.body: Body | None = Body()
        self.parsed = False

    def feed(self, block: bytes) -> None:
        """Take in raw bytes, until the caller parses the response."""
        if self.body is not None:
            self.body.feed(block)

    def closed(self) -> None:
        """Read through what has passed, and settle."""
        if self.parsed:
            super().closed()
        elif not self.settled:
            self._guarded(self._settle)

    def drop(self) -> None:
        """Settle from a finalizer: reading what has passed takes neither lock nor I/O."""
        if self._is_stream and not self.settled and not self.parsed:
            self._read_events()
        super().drop()

    def _settle(self) -> None:
        if self._is_stream:
            if self._read_events():
                self.finish()
            else:
                self.leave()
            return
        body, self.body = self.body, None
        content = b"" if body is None else body.content(self._encoding, self._kind)
        if settle_content(self.call, self._operation, content, self.units):
            self.settled = True
            return
        if body is not None and self.units is None:
            self.reader.output_bytes += body.length  # text that cannot be read, by its length
        self.leave()

    def _read_events(self) -> bool:
        """Read what has passed; returns whether the event with the final usage was among it."""
        body, self.body = self.body, None
        if body is None:
            return False
        content = body.content(self._encoding, self._kind)
        final = read_events(self.reader, content)
        # What was cut out of the middle, or could not be decoded, counts by its length.
        self.reader.output_bytes += max(0, body.length - len(content)) // _EVENT_OVERHEAD
        return final

    def take_stream(self, parsed: Any) -> Any:
        """Read along with what the caller's ``parse()`` made of the response, and hand it on."""
        try:
            if hasattr(parsed, "__stream__") and take_over(parsed, self):
                self.parsed, self.body = True, None
        except Exception as error:  # noqa: BLE001  # a fault of ours never stops the caller
            report("read a parsed stream along", error)
        return parsed


def read_events(reader: Reader, content: bytes) -> bool:
    """Show *reader* the events in *content*; returns whether the one with the final usage was among them."""
    final = False
    for line in content.split(b"\n"):
        if line.startswith(b"data:"):
            # "[DONE]", and a line that was cut, are no JSON.
            with suppress(ValueError):
                final = reader.see(json.loads(line[5:], object_hook=Loose)) or final
    return final


def settle_events(call: CallPort, operation: Operation, content: bytes, units: Usage | None) -> None:
    """Settle *call* from the whole body of a stream."""
    tally = Tally(call, operation.reader(), units)
    if read_events(tally.reader, content):
        tally.finish()
    else:
        tally.leave()


def settle_content(call: CallPort, operation: Operation, content: bytes, units: Usage | None) -> bool:
    """Settle *call* from a whole JSON body; returns false where there is nothing to settle with."""
    try:
        answer = json.loads(content)
    except ValueError:
        return False
    usage = operation.usage(answer)
    if usage is None and operation.name in ("speech", "video", "images"):
        usage = units  # of a transcription, it is only what its bytes suggest
    if not isinstance(answer, dict):
        answer = {}
    model, output_bytes = text(answer.get("model")), said_bytes(answer)
    if usage is not None and (usage.input_tokens or not is_empty(usage)):
        call.finish(usage, model, operation.tools(answer))
    elif output_bytes:
        call.finish_estimated(units, output_bytes, model, operation.tools(answer))
    else:
        return False
    return True


def content_of(response: Any) -> bytes | None:
    """Return the body of an HTTP response if it has been read, else ``None``; never reads it."""
    if not hasattr(response, "_content"):
        return None
    content = response.content
    return content if isinstance(content, bytes) else None


def take_raw(raw: Any, call: CallPort, operation: Operation, units: Usage | None, *, is_stream: bool) -> bool:
    """
    Meter *raw*, a wrapper whose body is not read yet, and defer *call* to it.

    A stream parsed out of it is reached through ``post_parser``, which the SDK applies to what ``parse()``
    makes: a wrapper around ``parse`` itself would tie the response into a reference cycle.
    """
    response = response_of(raw)
    response = raw if response is None else response
    tally = RawTally(call, operation, units, response, is_stream)
    source = getattr(response, "stream", None)
    tap = tap_response(response, tally.closed, tally.feed)
    if tap is None:
        return False
    owner = _Owner(tally)
    # The older httpx ties a response and its stream into a cycle: there the wrapper is what gets dropped.
    in_cycle = getattr(source, "_response", None) is response
    if not (in_cycle and _parse_through(raw, tally, owner)):
        tap.owner = owner
        _parse_through(raw, tally, None)
    call.defer()
    return True


class _Owner:
    """Lives as long as what holds it: a response dropped unread settles with it."""

    __slots__ = ("_tally",)

    def __init__(self, tally: RawTally) -> None:
        self._tally = tally

    def __del__(self) -> None:
        with suppress(Exception):  # a finalizer has nobody to tell
            if not self._tally.parsed:
                self._tally.drop()


class _AfterParse:
    """What the SDK calls with a parsed response: the caller's own parser, then ours; keeps *owner* alive."""

    def __init__(self, tally: RawTally, before: Any, owner: _Owner | None) -> None:
        self._tally = tally
        self._before = before
        self._owner = owner

    def __call__(self, parsed: Any) -> Any:
        return self._tally.take_stream(self._before(parsed) if callable(self._before) else parsed)


def _parse_through(raw: Any, tally: RawTally, owner: _Owner | None) -> bool:
    """Hand what ``parse()`` makes of *raw* to *tally*; *owner* lives as long as *raw* does."""
    options = getattr(raw, "_options", None)
    if options is None:
        return False
    changed = copy.copy(options)
    changed.post_parser = _AfterParse(tally, getattr(options, "post_parser", None), owner)
    raw._options = changed
    return True
