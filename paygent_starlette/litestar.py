"""
Paygent for Litestar: ``Litestar(plugins=[PaygentPlugin(upgrade_url="/upgrade")])``.

Litestar turns exceptions into responses inside of every middleware, so handlers for Paygent's two errors come
along. What has no handlers there, WebSockets and exception groups, is told through ``after_exception``.
"""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get
from litestar.config.app import AppConfig
from litestar.connection import ASGIConnection
from litestar.handlers import HTTPRouteHandler
from litestar.middleware import DefineMiddleware
from litestar.plugins import InitPlugin

from paygent.core.errors import PaygentLimitExceeded, PaygentUnavailable
from paygent.web.limit_response import Declined, LimitResponse, find_refusal
from paygent.web.options import is_async
from paygent.web.request import RequestSlot
from paygent.web.verbs import beside_the_loop
from paygent_starlette._answers import headers_of
from paygent_starlette._middleware import STATE, PaygentMiddleware
from paygent_starlette._plugin import AsgiPlugin
from paygent_starlette._users import Scope

__all__ = ["PaygentPlugin", "me_handler"]


class PaygentPlugin(InitPlugin):
    """
    Attribute every LLM call of a request to the user that Litestar's own authentication found.

    Args:
        options: Those of :class:`~paygent.web.options.WebOptions`; functions get Litestar's ``Request``, for
            a WebSocket its ``ASGIConnection``. ``get_user_id`` is by default the id of ``connection.user``.
            ``on_limit`` is a plain function: Litestar awaits no handler of exceptions.

    Raises:
        ValueError: An option cannot be right.
        TypeError: There is no such option, or it is of another kind.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        checked = _Middleware(None, **options).plugin.options  # what cannot be right is told here
        if is_async(checked.on_limit):
            raise TypeError("on_limit must be a plain function under Litestar, which awaits none")

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the middleware inside of all others, the handlers and the hook."""
        make: Any = _Middleware  # an ASGI app in wider types than Litestar's own
        app_config.middleware.append(DefineMiddleware(make, **self._options))
        for error in (PaygentLimitExceeded, PaygentUnavailable):
            app_config.exception_handlers.setdefault(error, _refused)
        app_config.after_exception.append(_note_refusal)
        return app_config


class _Plugin(AsgiPlugin):
    """The web plugin, its functions called with Litestar's own objects."""

    @staticmethod
    def is_response(answer: object) -> bool:
        """Whether ``on_limit`` returned a response of Litestar's."""
        return isinstance(answer, Response)

    @staticmethod
    def app_of(response: Any, request: Any) -> Any:
        """An app that sends a response of Litestar's."""
        return response.to_asgi_response(app=None, request=request)

    @staticmethod
    def connection_of(scope: Scope) -> Any:
        """The request, or for a WebSocket its connection."""
        connection: Any = Request if scope["type"] == "http" else ASGIConnection
        return connection(scope)


class _Middleware(PaygentMiddleware):
    plugin_type = _Plugin

    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(app, **options)  # Litestar gives the app by its name


def _slot_of(scope: Any) -> RequestSlot | None:
    slot: RequestSlot | None = scope.get("state", {}).get(STATE)
    return slot


def _refused(request: Request[Any, Any, Any], error: Any) -> Response[Any]:
    """Answer one of Paygent's errors."""
    slot = _slot_of(request.scope)
    if slot is None:  # the option enabled=False: the error is the app's own
        raise error
    scope: Any = request.scope
    answer = slot.plugin.refuse(error, headers_of(scope), request)
    return _response_of(answer) if isinstance(answer, LimitResponse) else answer


async def _note_refusal(error: Exception, scope: Any) -> None:
    """Have the refusal sent in place of what Litestar is about to make of *error*."""
    slot = _slot_of(scope)
    if slot is not None and (scope["type"] == "websocket" or not isinstance(error, Declined)):
        slot.unhandled = find_refusal(error)


def me_handler(path: str = "/paygent/me") -> HTTPRouteHandler:
    """Make the route ``GET …/paygent/me``: where the signed-in user stands, for the app's own front end."""

    @get(path, name="paygent:me")
    async def me(request: Request[Any, Any, Any]) -> Response[Any]:
        slot = _slot_of(request.scope)
        if slot is None:
            return Response(None, status_code=404)
        return _response_of(await beside_the_loop(slot, lambda: slot.plugin.me(slot.user_id)))

    return me


def _response_of(answer: LimitResponse) -> Response[bytes]:
    headers = dict(answer.headers)
    media = headers.pop("content-type")
    headers.pop("content-length")
    return Response(answer.body, status_code=answer.status, headers=headers, media_type=media)
