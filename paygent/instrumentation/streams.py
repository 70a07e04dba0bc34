"""
Meter a stream without replacing it.

The SDK's object stays: its ``_iterator`` is swapped for one that reads each event on its way to the caller,
and ``response.stream`` for one that notices the response being closed (the SDKs' helpers close it directly).
A stream settles on the event that carries its final usage; left early, at what was reported or an estimate.
Of the three signals that end it, end of iteration, close and drop, the first one counts.
"""

from __future__ import annotations

import copy
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from operator import attrgetter
from types import AsyncGeneratorType, FrameType, GeneratorType
from typing import Any

from paygent.core.usage import Usage, is_empty
from paygent.instrumentation._fields import loose
from paygent.instrumentation._report import guarded, report
from paygent.instrumentation.ports import CallPort, MeterPort
from paygent.instrumentation.readers import Reader
from paygent.meter import active

# Of generators; somebody may look at them.
_NAMES = (
    "close", "send", "throw", "gi_code", "gi_frame", "gi_running", "gi_suspended", "gi_yieldfrom",
    "aclose", "asend", "athrow", "ag_await", "ag_code", "ag_frame", "ag_running", "ag_suspended",
)  # fmt: skip


class Tally:
    """
    What one stream has used, and its one settlement.

    ``hide`` says that the chunk with usage was asked for by us, and is kept from the caller. ``iterator`` is
    the SDK's, while it lives.
    """

    __slots__ = ("__weakref__", "call", "hide", "iterator", "reader", "settled", "units")

    def __init__(
        self, call: CallPort, reader: Reader, units: Usage | None = None, *, hide: bool = False
    ) -> None:
        self.call = call
        self.reader = reader
        self.units = units
        self.hide = hide
        self.iterator: Callable[[], Any] = _nothing
        self.settled = False

    def see(self, event: Any) -> bool:
        """Take in one event; settles on the final one. Returns whether to keep it from the caller."""
        try:
            try:
                final = self.reader.see(event)
            except (AttributeError, TypeError):
                # A server that leaves fields out, or an answer that was never made a model.
                final = self.reader.see(loose(event))
            if final:
                self.finish()
                return self.hide and not event.choices
        except Exception as error:  # noqa: BLE001  # a fault of ours never stops the caller's stream
            report("read a stream's event", error)
        return False

    def finish(self) -> None:
        """Settle once: with the usage reported, else by estimate."""
        if self.settled:
            return
        self.settled = True
        reader = self.reader
        if reader.usage is not None and not (is_empty(reader.usage) and reader.output_bytes):
            self.call.finish(reader.usage, reader.model, reader.tools)
        elif reader.failed and not reader.output_bytes:
            self.call.fail(None)
        else:
            self.call.finish_estimated(self.units, reader.output_bytes, reader.model, reader.tools)

    def leave(self) -> None:
        """Settle a stream that ended before its usage was final."""
        if self.settled:
            return
        self.settled = True
        self.call.finish_estimated(*self._left())

    def _left(self) -> tuple[Usage | None, int, str | None, list[str]]:
        """What is known of a stream that nobody reads to its end."""
        reader = self.reader
        partial = self.units if reader.usage is None else reader.usage
        return partial, reader.output_bytes, reader.model, reader.tools

    def closed(self) -> None:
        """The response was closed: by the SDK in the middle of a step (which says more), or by the caller."""
        iterator = self.iterator()
        running = getattr(iterator, "gi_running", None) or getattr(iterator, "ag_running", None)
        if not running and isinstance(sys.exc_info()[1], GeneratorExit):
            self.drop()  # closed with the generator that reads it: see Call._leave
        elif not running:
            self._guarded(self.leave)

    def ended(self) -> None:
        """The iteration came to its natural end."""
        self._guarded(self.finish)

    def broke(self, error: BaseException) -> None:
        """The iteration raised: the provider's own error before any output costs nothing."""
        if isinstance(error, GeneratorExit):
            self.drop()
            return
        has_said = self.reader.usage is not None or self.reader.output_bytes
        if not (self.settled or has_said) and _refused(error):
            self.settled = True
            self._guarded(lambda: self.call.fail(error))
        else:
            self._guarded(self.leave)

    def drop(self) -> None:
        """Settle from a finalizer: no lock, no log, no I/O; the meter does the rest later."""
        if self.settled:
            return
        self.settled = True
        meter: MeterPort | None = active.get()
        if meter is not None:
            meter.later(self.call, *self._left())

    def _guarded(self, settle: Callable[[], None]) -> None:
        try:
            settle()
        except Exception as error:  # noqa: BLE001  # a fault of ours never stops the caller's stream
            report("settle a stream", error)


def _nothing() -> None:
    return None


def _refused(error: BaseException) -> bool:
    """Return whether *error* is the provider's own answer, as an event, not a broken connection."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return "APIError" in names and "APIConnectionError" not in names


class _Counted:
    """
    What both counting iterators share; they have the attributes of the generator within.

    Those by name: a class that has ``__getattr__`` pays twice for each attribute of its own, and these
    are on the path of every chunk.
    """

    __slots__ = ("_inner", "_skim", "_tally")

    def __init__(self, inner: Any, tally: Tally) -> None:
        self._inner = inner
        self._tally = tally
        self._skim = tally.reader.skim
        with suppress(TypeError):  # an iterator of somebody else's may not allow it
            tally.iterator = weakref.ref(inner)  # not the thing itself: a dropped stream must go at once

    def __del__(self) -> None:
        with suppress(Exception):  # a finalizer has nobody to tell
            self._tally.drop()


for _name in _NAMES:
    setattr(_Counted, _name, property(attrgetter(f"_inner.{_name}")))


class _Foreign:
    """An iterator of somebody else's is within: attributes that we do not know are its own."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        if name in _Counted.__slots__:  # half-built, or being torn down
            raise AttributeError(name)
        return getattr(self._inner, name)


class CountedIterator(_Counted):
    """The SDK's iterator, read along."""

    __slots__ = ()

    def __iter__(self) -> CountedIterator:
        return self

    def __next__(self) -> Any:
        while True:
            try:
                event = next(self._inner)
            except StopIteration:
                self._tally.ended()
                raise
            except BaseException as error:
                self._tally.broke(error)
                raise
            if self._skim(event) or not self._tally.see(event):
                return event


class _AsyncGeneratorByName(type):
    """Makes a class that says it is what it stands in for: sentry-sdk before 2.57 goes by the name alone."""

    def __repr__(cls) -> str:
        return "<class 'async_generator'>"


class AsyncCountedIterator(_Counted, metaclass=_AsyncGeneratorByName):
    """The asynchronous twin of :class:`CountedIterator`."""

    __slots__ = ()

    def __aiter__(self) -> AsyncCountedIterator:
        return self

    async def __anext__(self) -> Any:
        while True:
            try:
                event = await anext(self._inner)
            except StopAsyncIteration:
                self._tally.ended()
                raise
            except BaseException as error:
                self._tally.broke(error)
                raise
            if self._skim(event) or not self._tally.see(event):
                return event


class _ForeignIterator(_Foreign, CountedIterator):
    __slots__ = ()


class _ForeignAsyncIterator(_Foreign, AsyncCountedIterator):
    __slots__ = ()


def take_over(stream: Any, tally: Tally) -> bool:
    """
    Read along with *stream*, a ``Stream`` or ``AsyncStream`` of either SDK, from now on.

    Returns false where it cannot be done: the stream is left as it was.
    """
    inner = _iterator_of(stream)
    if isinstance(inner, _Counted):
        return True
    if hasattr(inner, "__anext__"):
        is_known = isinstance(inner, AsyncGeneratorType)
        stream._iterator = (AsyncCountedIterator if is_known else _ForeignAsyncIterator)(inner, tally)
    elif hasattr(inner, "__next__"):
        is_known = isinstance(inner, GeneratorType)
        stream._iterator = (CountedIterator if is_known else _ForeignIterator)(inner, tally)
    else:
        return False
    tap_response(response_of(stream), tally.closed)
    return True


def response_of(stream: Any) -> Any:
    """Return the HTTP response behind a stream, a decoder or a raw wrapper; ``None`` if there is none."""
    response = getattr(stream, "response", None)
    return getattr(stream, "http_response", None) if response is None else response


def _iterator_of(stream: Any) -> Any:
    """
    Return the iterator to read along with.

    The SDK's own generator refers back to the stream, so that a dropped stream would wait for the garbage
    collector: it is made anew on a copy, which must not hold the first one. Somebody else's is kept.
    """
    present = vars(stream).get("_iterator")
    if isinstance(present, _Counted):
        return present
    twin = copy.copy(stream)
    vars(twin).pop("_iterator", None)
    remake = getattr(twin, "__stream__", None) or getattr(twin, "__decode__", None)
    if remake is None:
        return present
    fresh = remake()
    return fresh if present is None or _is_untouched(present, fresh) else present


def _is_untouched(present: Any, fresh: Any) -> bool:
    """Return whether *present* is a generator of the same code as *fresh*, and as little begun."""
    before, after = _frame_of(present), _frame_of(fresh)
    if before is None or after is None:
        return False
    return before.f_code is after.f_code and before.f_lasti == after.f_lasti


def _frame_of(iterator: Any) -> FrameType | None:
    if isinstance(iterator, GeneratorType):
        return iterator.gi_frame
    return iterator.ag_frame if isinstance(iterator, AsyncGeneratorType) else None


def tap_response(
    response: Any, closed: Callable[[], None], fed: Callable[[bytes], None] | None = None
) -> Any:
    """
    Tap ``response.stream``: *closed* is called when the response is closed, *fed* with its raw bytes.

    The bytes are those of the wire, content encoding and all. Returns the tap, or ``None``.
    """
    source = getattr(response, "stream", None)
    kind = None if source is None else _tap_class(type(response))
    if kind is None:
        return None
    response.stream = tap = kind(source, closed, fed)
    return tap


_tap_classes: dict[type, type | None] = {}


def _tap_class(response_class: type) -> type | None:
    """Return the tap of the HTTP library of *response_class*; that library is loaded, not imported."""
    if response_class not in _tap_classes:
        _tap_classes[response_class] = _make_tap_class(response_class)
    return _tap_classes[response_class]


def _make_tap_class(response_class: type) -> type | None:
    for kind in response_class.__mro__:
        library = sys.modules.get(kind.__module__.partition(".")[0])
        sync, twin = getattr(library, "SyncByteStream", None), getattr(library, "AsyncByteStream", None)
        if sync is not None and twin is not None:
            return type("PaygentTap", (_Tap, sync, twin), {})
    return None


class _Tap:
    """A byte stream that passes bytes and attributes through, and tells of the bytes and of the end."""

    def __init__(self, source: Any, closed: Callable[[], None], fed: Callable[[bytes], None] | None) -> None:
        self._source = source
        self._closed = closed
        self.fed = fed

    def __getattr__(self, name: str) -> Any:
        if name in ("_source", "_closed", "fed"):  # half-built, or being torn down
            raise AttributeError(name)
        return getattr(self._source, name)

    def __iter__(self) -> Any:
        blocks = iter(self._source)
        return blocks if self.fed is None else _Blocks(blocks, self)

    def __aiter__(self) -> Any:
        blocks = aiter(self._source)
        return blocks if self.fed is None else _AsyncBlocks(blocks, self)

    def take(self, block: bytes) -> bytes:
        """Show *block* to whoever listens, and return it."""
        if self.fed is not None:
            with guarded("read a response along"):
                self.fed(block)
        return block

    def close(self) -> None:
        self._closed()
        self._source.close()

    async def aclose(self) -> None:
        self._closed()
        await self._source.aclose()


class _Blocks:
    def __init__(self, blocks: Any, tap: _Tap) -> None:
        self._blocks = blocks
        self._tap = tap

    def __iter__(self) -> _Blocks:
        return self

    def __next__(self) -> bytes:
        return self._tap.take(next(self._blocks))


class _AsyncBlocks:
    def __init__(self, blocks: Any, tap: _Tap) -> None:
        self._blocks = blocks
        self._tap = tap

    def __aiter__(self) -> _AsyncBlocks:
        return self

    async def __anext__(self) -> bytes:
        return self._tap.take(await anext(self._blocks))
