"""One request and its response: every step of it in a context of its own, the refusal said in time."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextvars import copy_context
from functools import partial
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Protocol

from flask import Flask, Response, copy_current_request_context, current_app, g, has_request_context, request
from werkzeug.wsgi import ClosingIterator

from paygent.context import set_payer
from paygent.web.held_start import HeldStart, Step, swallowed
from paygent.web.limit_response import Declined, LimitResponse, find_refusal

if TYPE_CHECKING:
    from paygent.web.plugin import WebPlugin
    from paygent.web.request import RequestSlot

EXCHANGE = "paygent.exchange"  # in the environ: a weak reference, so that nothing is kept alive by a cycle

Environ = dict[str, Any]
Headers = list[tuple[str, str]]
WSGIApp = Callable[[Environ, Any], Iterable[bytes]]
Head = tuple[str, Headers]  # status line, headers
Reply = tuple[str, Headers, bytes]  # status line, headers, body

_NO_FILES = (ClosingIterator, GeneratorType, list, tuple)
_END = object()
_SEND = Step.SEND


class Refusing(Protocol):
    """What an exchange needs of the extension."""

    app: Flask
    plugin: WebPlugin

    def reply(self, refusal: Declined) -> Reply:
        """Word *refusal*, in the request's context, as the app wants it."""


class Exchange:
    """
    Serves one request; also the body that the server iterates over.

    The whole request runs in one copy of the context: the app, each step of a streamed body, and its close.
    So a body is attributed for as long as it lasts, and nothing stays in the thread for its next request.
    The start of a response of unknown length is held back until its first chunk: a limit met by the
    generator behind it is still a clean 429. It is not sent twice, as WSGI would allow with ``exc_info``:
    gunicorn then keeps the headers of both. A 500 that a refusal led to, by way of handlers that know
    nothing of it, is answered with the refusal. The rules are :class:`~paygent.web.held_start.HeldStart`'s.
    """

    __slots__ = (
        "__weakref__", "_body", "_failed", "_inside", "_is_sized", "_next", "_plugin", "_refusals", "_run",
        "_said", "_start_response", "_write", "environ", "slot",
    )  # fmt: skip

    def __init__(self, refusals: Refusing, environ: Environ, start_response: Any) -> None:
        self.environ = environ
        self._refusals = refusals
        self._plugin = plugin = refusals.plugin
        self._start_response = start_response
        self._run = copy_context().run
        self._said: HeldStart[Head] = HeldStart(_headers_of)
        self._is_sized = False
        self._inside: Callable[..., Any] | None = None
        self._failed: Declined | None = None  # the refusal that the app has made an error page of
        self.slot: RequestSlot | None = plugin.open(self)
        environ[EXCHANGE] = weakref.ref(self)

    # -- the app ----------------------------------------------------------------------------------------

    def serve(self, app: WSGIApp) -> Iterable[bytes]:
        """Run *app*; returns the body."""
        self._run(set_payer, self.slot)
        try:
            body = self._run(app, self.environ, self.start)
        except Exception as error:  # noqa: BLE001  # raised on, unless it is a refusal
            self._body = None
            self._next = iter((self._refused(error),)).__next__
            return self
        except BaseException:
            self._finish()
            raise
        if self._is_file(body):
            self._release()
            self._finish()
            return body
        self._body = body
        self._next = iter(body).__next__
        if self._failed is not None:
            self._next = iter((self._answered(self._failed),)).__next__
        return self

    def start(self, status: str, headers: Headers, exc_info: Any = None) -> Callable[[bytes], Any]:
        """``start_response`` for the app."""
        slot = self.slot
        refusal = None if slot is None or exc_info else slot.tally.refusal
        if refusal is not None:
            refusal = swallowed(int(status[:3]), refusal)
        self._is_sized = is_sized = _is_sized(headers)
        step = self._said.begin((status, headers), refusal, is_sized or exc_info is not None)
        if step is _SEND:
            self._send(status, headers, exc_info)
            return self.write
        if step is Step.ANSWER:
            self._failed = refusal
        if has_request_context():
            self._inside = _kept_request()
        return self.write

    def write(self, data: bytes) -> None:
        """WSGI's other way to send a body."""
        self._release()
        self._write(data)

    def _is_file(self, body: Iterable[bytes]) -> bool:
        """Whether the server has its own way to send *body*, which must then see the object itself."""
        wrapper = self.environ.get("wsgi.file_wrapper")
        if wrapper is None or isinstance(body, _NO_FILES):
            return False
        # A wrapper may be a plain function: then whatever has a length and no look of a body is a file.
        return isinstance(body, wrapper) if isinstance(wrapper, type) else self._said.sent is not None

    # -- the body ---------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[bytes]:
        if self._is_sized and self._said.sent is not None:  # nothing can be said in it: no step of ours
            return iter(partial(self._run, self._next), _END)
        return self

    def __next__(self) -> bytes:
        said = self._said
        try:
            chunk: bytes = self._run(self._next)
            while not chunk and said.held is not None:
                chunk = self._run(self._next)
        except StopIteration:
            self._release()
            raise
        except Exception as error:  # noqa: BLE001  # raised on, unless it is a refusal
            words = self._refused(error)
            self._next = iter(()).__next__
            return words
        if said.held is not None:
            self._release()
        return chunk

    def close(self) -> None:
        """End the body: the client has it, or has gone away."""
        body, self._body = self._body, None
        try:
            close = getattr(body, "close", None)
            if close is not None:
                self._run(close)
        finally:
            self._finish()

    def _finish(self) -> None:
        slot, self.slot = self.slot, None  # which breaks the cycle between the two
        if slot is not None and self._plugin.ended(slot) is not None:
            self._plugin.finish(slot)

    # -- what is said -----------------------------------------------------------------------------------

    def _refused(self, error: Exception) -> bytes:
        """
        Say the refusal in *error* as well as it still can be said.

        Any other error is raised on, and so is a refusal where half of a body that is no event stream has
        gone out: it must not end as if it were whole.
        """
        refusal = find_refusal(error)
        if refusal is not None:
            step = self._said.refuse()
            if step is Step.ANSWER:
                return self._answered(refusal)
            if step is Step.EVENT:
                return self._plugin.responder.event(refusal)
        self._finish()
        raise error

    def _answered(self, refusal: Declined) -> bytes:
        """Say *refusal* instead of what was held back; returns the body."""
        status, headers, body = self._run(self.inside, self._refusals.reply, refusal)
        headers += self._said.kept(headers)
        self._said.begin((status, headers), None, True)
        self._send(status, headers)
        return b"" if self.environ.get("REQUEST_METHOD") == "HEAD" else body

    def _release(self) -> None:
        """Send a start that is still held."""
        head = self._said.release()
        if head is not None:
            self._send(*head)

    def _send(self, status: str, headers: Headers, exc_info: Any = None) -> None:
        if self._plugin.options.usage_headers and self.slot is not None:
            headers = [*headers, *self._plugin.headers(self.slot).items()]
        start = self._start_response
        self._write = start(status, headers, exc_info) if exc_info else start(status, headers)

    # -- the request's context ----------------------------------------------------------------------------

    def inside(self, function: Callable[..., Any], *args: Any) -> Any:
        """
        Call *function* in the request's context.

        Flask ends that context before a streamed body begins: then in a copy, with the same ``session`` and
        what ``g`` held.
        """
        if has_request_context() and exchange_of(request.environ) is self:
            return function(*args)
        if self._inside is not None:
            return self._inside(function, *args)
        with self._refusals.app.request_context(self.environ):
            return function(*args)


def exchange_of(environ: Environ) -> Exchange | None:
    """The exchange that serves the request of *environ*, if there is one."""
    reference = environ.get(EXCHANGE)
    return reference() if reference is not None else None


def response_of(answer: LimitResponse) -> Response:
    """A refusal as a response of the app."""
    return current_app.response_class(answer.body, answer.status, list(answer.headers))


def _kept_request() -> Callable[..., Any]:
    """Return what calls a function in a copy of the present request's context, later."""
    kept = g._get_current_object()  # noqa: SLF001  # the documented way to the object behind a proxy

    @copy_current_request_context
    def inside(function: Callable[..., Any], *args: Any) -> Any:
        for name in tuple(kept):
            setattr(g, name, kept.get(name))
        return function(*args)

    return inside


def _headers_of(head: Head) -> Headers:
    return head[1]


def _is_sized(headers: Headers) -> bool:
    """Whether the length is known: no language model writes that response."""
    if headers and headers[-1][0] == "Content-Length":  # as Werkzeug writes it
        return True
    return any(name.lower() == "content-length" for name, _ in headers)
