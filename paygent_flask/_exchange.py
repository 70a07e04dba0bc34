"""One request and its response: every step of it in a context of its own, the refusal said in time."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextvars import copy_context
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Protocol

from flask import Flask, Response, copy_current_request_context, current_app, g, has_request_context, request
from werkzeug.wsgi import ClosingIterator

from paygent.context import set_payer
from paygent.web.limit_response import Declined, LimitResponse, find_refusal

if TYPE_CHECKING:
    from paygent.web.plugin import WebPlugin
    from paygent.web.request import RequestSlot

EXCHANGE = "paygent.exchange"  # in the environ: a weak reference, so that nothing is kept alive by a cycle

Environ = dict[str, Any]
Headers = list[tuple[str, str]]
WSGIApp = Callable[[Environ, Any], Iterable[bytes]]
Reply = tuple[str, Headers, bytes]  # status line, headers, body

_NO_FILES = (ClosingIterator, GeneratorType, list, tuple)
_OWN = ("content-", "cache-", "etag", "last-modified", "expires", "accept-ranges", "transfer-", "retry-after")


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
    nothing of it, is answered with the refusal.
    """

    __slots__ = (
        "__weakref__", "_body", "_failed", "_head", "_inside", "_next", "_plugin", "_refusals", "_run",
        "_start_response", "_started", "_write", "environ", "slot",
    )  # fmt: skip

    def __init__(self, refusals: Refusing, environ: Environ, start_response: Any) -> None:
        self.environ = environ
        self._refusals = refusals
        self._plugin = plugin = refusals.plugin
        self._start_response = start_response
        self._run = copy_context().run
        self._head: tuple[str, Headers] | None = None  # held back
        self._started: Headers | None = None  # the headers that the server has
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
        if status[:3] == "500" and self.slot is not None:
            self._failed = self.slot.refusal
        if self._started is not None or exc_info or (self._failed is None and _is_sized(headers)):
            self._head = None
            self._send(status, headers, exc_info)
        else:
            self._head = (status, headers)
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
        return isinstance(body, wrapper) if isinstance(wrapper, type) else self._started is not None

    # -- the body ---------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            chunk: bytes = self._run(self._next)
            while not chunk and self._head is not None:
                chunk = self._run(self._next)
        except StopIteration:
            if self._head is not None:
                self._release()
            raise
        except Exception as error:  # noqa: BLE001  # raised on, unless it is a refusal
            said = self._refused(error)
            self._next = iter(()).__next__
            return said
        if self._head is not None:
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
        if slot is not None:
            self._plugin.finish(slot)

    # -- what is said -----------------------------------------------------------------------------------

    def _refused(self, error: Exception) -> bytes:
        """
        Say the refusal in *error* as well as it still can be said.

        Any other error is raised on, and so is a refusal where half of a body that is no event stream has
        gone out: it must not end as if it were whole.
        """
        refusal = find_refusal(error)
        if self._started is None and refusal is not None:
            return self._answered(refusal)
        if refusal is not None and _is_event_stream(self._started or ()):
            return self._plugin.responder.event(refusal)
        self._finish()
        raise error

    def _answered(self, refusal: Declined) -> bytes:
        """Say *refusal* instead of what was held back; returns the body."""
        status, headers, body = self._run(self.inside, self._refusals.reply, refusal)
        self._send(status, self._with_kept(headers))
        self._head = None
        return b"" if self.environ.get("REQUEST_METHOD") == "HEAD" else body

    def _with_kept(self, headers: Headers) -> Headers:
        """*headers*, with what the app said of the request itself: cookies, CORS, security."""
        own = {name.lower() for name, _ in headers} - {"vary"}
        held = self._head[1] if self._head is not None else []
        kept = [pair for pair in held if not pair[0].lower().startswith(_OWN) and pair[0].lower() not in own]
        return [*headers, *kept]

    def _release(self) -> None:
        """Send a start that is still held."""
        if self._head is not None:
            (status, headers), self._head = self._head, None
            self._send(status, headers)

    def _send(self, status: str, headers: Headers, exc_info: Any = None) -> None:
        self._started = headers
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


def _is_sized(headers: Headers) -> bool:
    """Whether the length is known: no language model writes that response."""
    for name, _ in headers:  # noqa: SIM110  # twice as fast, and each response comes by here
        if name == "Content-Length" or name.lower() == "content-length":
            return True
    return False


def _is_event_stream(headers: Iterable[tuple[str, str]]) -> bool:
    """Whether text can be added to the body as an event; not to a compressed one."""
    media = ""
    for name, value in headers:
        lowered = name.lower()
        if lowered == "content-encoding":
            return False
        if lowered == "content-type":
            media = value.lower()
    return media.startswith("text/event-stream")
