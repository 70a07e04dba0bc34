"""How an app says that a call was refused: its own error handler, else ours."""

from __future__ import annotations

import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from flask import Flask, current_app, request
from flask.typing import ResponseReturnValue

from paygent.core.errors import PaygentLimitExceeded, PaygentUnavailable
from paygent.web.held_start import swallowed
from paygent.web.limit_response import Declined, LimitResponse, find_refusal
from paygent.web.plugin import WebPlugin
from paygent.web.request import current_slot
from paygent_flask._exchange import Reply, response_of

log = logging.getLogger("paygent")


class FlaskPlugin(WebPlugin):
    """The web plugin of a Flask app."""

    @staticmethod
    def is_response(answer: object) -> bool:
        """Whether ``on_limit`` returned what a view may return; asked within a request."""
        try:
            current_app.make_response(answer)  # type: ignore[arg-type]  # that is the question
        except TypeError:
            return False
        return True


class Refusals:
    """The refusals of one app."""

    def __init__(self, app: Flask, plugin: WebPlugin) -> None:
        self.app = app
        self.plugin = plugin
        handlers = app.error_handler_spec[None][None]
        for kind in (PaygentLimitExceeded, PaygentUnavailable):
            if kind not in handlers:
                app.register_error_handler(kind, self._respond)
        app.handle_exception = self._unwrapping(app.handle_exception)  # type: ignore[method-assign]

    def reply(self, refusal: Declined) -> Reply:
        """Word *refusal* for a body that has not begun, in the request's context."""
        try:
            response = self.app.make_response(self.app.handle_user_exception(refusal))
            if swallowed(response.status_code, refusal):  # a blueprint's handler of all errors came first
                response = self.app.make_response(self._respond_for_app(refusal))
            body = response.get_data()
            response.content_length = len(body)
            return response.status, response.get_wsgi_headers(request.environ).to_wsgi_list(), body
        except Exception:
            log.exception("the app's answer to a refusal failed: the usual one is sent")
        answer = self.plugin.answer(refusal, _headers())
        return f"{answer.status} {HTTPStatus(answer.status).phrase}", list(answer.headers), answer.body

    def _respond_for_app(self, refusal: Declined) -> ResponseReturnValue:
        """The app's own handler of *refusal*, else ours, whatever its blueprints have."""
        handlers = self.app.error_handler_spec[None][None]
        handler = next(handlers[kind] for kind in type(refusal).__mro__ if kind in handlers)
        answer: ResponseReturnValue = self.app.ensure_sync(handler)(refusal)
        return answer

    def _respond(self, refusal: Declined) -> ResponseReturnValue:
        """Our error handler."""
        answer: Any = self.plugin.refuse(refusal, _headers(), request)
        return response_of(answer) if isinstance(answer, LimitResponse) else answer

    def _unwrapping(self, handle_exception: Callable[..., Any]) -> Callable[..., Any]:
        """
        Handle an error that no handler was found for as the refusal it was made from, if it was.

        Such as the exception group of a task group, or what a library raises from ours. Also what an
        ``after_request`` function raises, for which Flask asks no handlers at all.
        """
        app: Any = self.app  # a later Flask passes the context first, whatever its types say

        def handle(*args: Any) -> Any:
            refusal = find_refusal(args[-1])
            if refusal is None:
                slot = current_slot()
                if slot is not None:
                    slot.refusal = None  # it was handled, and something else went wrong
                return handle_exception(*args)
            try:
                answer = app.handle_user_exception(*args[:-1], refusal)
            except Exception as error:  # noqa: BLE001  # the app's own handler wants it to be an error
                return handle_exception(*args[:-1], error)
            return app.finalize_request(*args[:-1], answer, from_error_handler=True)

        return handle


def _headers() -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}
