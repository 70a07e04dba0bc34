"""Paygent in Quart, which makes error pages of exceptions inside of every middleware."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Callable
from typing import Any

from quart import Response, has_websocket_context
from quart.signals import got_request_exception, got_websocket_exception, request_started, websocket_started
from werkzeug.sansio.response import Response as AnyResponse

from paygent.core.errors import PaygentLimitExceeded, PaygentUnavailable
from paygent.web.limit_response import LimitResponse, find_refusal
from paygent.web.options import is_async
from paygent.web.request import current_slot
from paygent_starlette._answers import Receive, Send, headers_of
from paygent_starlette._middleware import PaygentMiddleware
from paygent_starlette._plugin import AsgiPlugin
from paygent_starlette._users import Scope

_CONTEXT = "paygent.quart_context"
_ASKED_IN_REQUEST = ("get_user_id", "get_session_id", "get_plan", "metadata", "anonymous")


def add_to_quart(app: Any, options: dict[str, Any]) -> None:
    """
    Put the middleware around *app*, and handlers for the two errors into it.

    What its handlers cannot see (WebSockets, exception groups) the signals tell of. Handlers that the app
    registers itself win.
    """
    within = {name: _within_request(options[name]) for name in _ASKED_IN_REQUEST if name in options}
    if callable(options.get("on_limit")):
        within["on_limit"] = _responding(app, options["on_limit"])
    app.asgi_app = _Middleware(app.asgi_app, **{**options, **within})
    for started in (request_started, websocket_started):
        started.connect(_keep_context, app)
    handlers = app.error_handler_spec[None][None]
    for error in (PaygentLimitExceeded, PaygentUnavailable):
        if error not in handlers:
            app.register_error_handler(error, _refused)
    for signal in (got_request_exception, got_websocket_exception):
        signal.connect(_note_refusal, app)


def _within_request(find: Any) -> Any:
    """
    An option that is asked in the context of its request, wherever the LLM call is made.

    Since 0.23 Quart gives background tasks a context in which ``quart.session`` is not to be had.
    """
    if not callable(find):
        return find
    if not is_async(find):
        return lambda request: _within(request, find, request)

    async def found(request: Any) -> Any:
        return await _within(request, asyncio.ensure_future, find(request))

    return found


def _within(request: Any, function: Callable[[Any], Any], value: Any) -> Any:
    context: contextvars.Context | None = request.scope.get(_CONTEXT)
    # Of a copy: a context cannot be entered twice at once, and calls may be made in threads.
    return function(value) if context is None else context.copy().run(function, value)


def _responding(app: Any, on_limit: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Have what *on_limit* returns, which may be whatever a view may return, made a response."""

    async def responded(request: Any, problem: Any) -> Any:
        answer = on_limit(request, problem)
        if inspect.isawaitable(answer):
            answer = await answer
        try:
            return await app.make_response(answer)
        except TypeError:
            return answer  # the plugin says that it is none

    return responded


async def _keep_context(_sender: object, **_: Any) -> None:
    slot = current_slot()
    if slot is not None:
        slot.request.scope[_CONTEXT] = contextvars.copy_context()


class _Plugin(AsgiPlugin):
    @staticmethod
    def app_of(response: Any, request: Any) -> Any:  # noqa: ARG004  # one of these is all it takes
        """An app that sends a response of Quart's, or of Werkzeug's as ``redirect()`` makes one."""
        return _Sent(response)

    @staticmethod
    def is_response(answer: object) -> bool:
        """Whether it is such a response."""
        return isinstance(answer, AnyResponse)


class _Middleware(PaygentMiddleware):
    plugin_type = _Plugin


class _Sent:
    """A response of Quart's as an ASGI app."""

    def __init__(self, response: Any) -> None:
        self._response = response

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send it, whole."""
        body = self._response.get_data(as_text=False)
        if inspect.isawaitable(body):
            body = await body
        headers = [(name.lower().encode(), value.encode()) for name, value in self._response.headers]
        start = {"type": "http.response.start", "status": self._response.status_code}
        await send({**start, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def _refused(error: PaygentLimitExceeded | PaygentUnavailable) -> Any:
    slot = current_slot()
    if slot is None or has_websocket_context():  # the middleware knows whether it is accepted yet
        raise error
    request = slot.request
    answer = await slot.plugin.refuse_async(error, headers_of(request.scope), request)
    if not isinstance(answer, LimitResponse):
        return answer
    return Response(answer.body, answer.status, headers=dict(answer.headers))


def _note_refusal(_sender: object, exception: BaseException, **_: Any) -> None:
    slot = current_slot()
    if slot is not None:
        slot.unhandled = find_refusal(exception)
