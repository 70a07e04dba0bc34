"""The middleware: a context for each request, and the refusal as an answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.middleware.cors import CORSMiddleware

from paygent.client import Paygent
from paygent.context import Payer, current_payer, set_payer
from paygent.web.limit_response import find_refusal
from paygent.web.options import WebOptions
from paygent.web.request import RequestSlot
from paygent_starlette._answers import Receive, Send
from paygent_starlette._leavers import look_after
from paygent_starlette._plugin import AsgiPlugin
from paygent_starlette._replies import HTTPReply, Reply
from paygent_starlette._sockets import SocketReply
from paygent_starlette._users import Scope

log = logging.getLogger("paygent")

ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

STATE = "paygent"
APP = "paygent.app"  # in the scope: whose middleware is at work
_NO_OPTIONS = WebOptions()
APPS_MAX = 50
_REPLIES: dict[str, Callable[[Scope, Receive, Send, RequestSlot], Reply]] = {
    "http": HTTPReply,
    "websocket": SocketReply,
}


class PaygentMiddleware:
    """
    Attribute every LLM call of a request to its user, and answer a refused one.

    Covers HTTP and WebSocket connections for as long as they last: streamed bodies and background tasks
    included. A refusal becomes the 429 of a plan that is spent (401 for nobody, 503 where the ledger is
    away); a stream that has begun ends with one ``event: error``. A request without an LLM call costs
    nothing, and its user is never looked up.

    ``request.state.paygent`` is the request's :class:`~paygent.web.request.RequestSlot`: set its ``user_id``
    where the user is only learnt by the endpoint, read its ``cost`` after the calls.

    Place it inside CORS middleware, or browsers hide the refusal from scripts; :func:`add_paygent` does.

    Args:
        options: Those of :class:`~paygent.web.options.WebOptions`. Functions get the ``Request``, for a
            WebSocket the ``HTTPConnection``. ``get_user_id`` is by default the user of
            ``AuthenticationMiddleware`` or of whatever else sets ``scope["user"]``.

    Raises:
        ValueError: An option cannot be right.
        TypeError: There is no such option, or it is of another kind.
    """

    plugin_type = AsgiPlugin

    def __init__(self, app: ASGIApp, /, **options: Any) -> None:
        self.app = app
        self.plugin = self.plugin_type(WebOptions.of(options))
        self._replies = _REPLIES if self.plugin.options.enabled else {}
        self._checked = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        make_reply = self._replies.get(scope["type"])
        outer = current_payer()
        if make_reply is None or (outer is not None and self._is_inside(scope, outer)):
            await self.app(scope, receive, _at_rest(send) if scope["type"] == "lifespan" else send)
            return
        slot = self.plugin.open(scope)
        state = scope.setdefault("state", {})
        if STATE in state:  # hypercorn before 0.18 has one for all requests of a connection
            state = scope["state"] = {**state}
        state[STATE] = slot
        scope[APP] = scope.get("app")
        if self.plugin.eager:
            await slot.find_async()
        reply = make_reply(scope, receive, send, slot)
        set_payer(slot)
        try:
            await self.app(scope, receive, reply.send)
            await reply.finish()
        except Exception as error:
            refusal = find_refusal(error)
            if refusal is None or not await reply.refuse(refusal):
                raise
        finally:
            reply.drop()
            set_payer(outer)
            if not self._checked:
                self._check()
            if reply.is_cut:
                look_after(slot)
            if self.plugin.ended(slot) is not None:
                await self.plugin.finish_async(slot)

    def _is_inside(self, scope: Scope, outer: Payer) -> bool:
        """Whether one further out does the work; a mounted app with options of its own has its own."""
        if scope.get("state", {}).get(STATE) is not outer:
            return False
        is_mounted = scope.get(APP) is not None and scope.get("app") is not scope[APP]
        return not is_mounted or self.plugin.options == _NO_OPTIONS

    def _check(self) -> None:
        """Say once where the app's CORS middleware cannot put its headers on a refusal."""
        self._checked = True
        inner: Any = self.app
        for _ in range(APPS_MAX):
            if isinstance(inner, CORSMiddleware):
                log.warning(
                    "PaygentMiddleware is outside of CORSMiddleware: browsers hide its answers from scripts "
                    "of other origins; use add_paygent(app), or add it before CORSMiddleware"
                )
            inner = getattr(inner, "app", None)


def _at_rest(send: Send) -> Send:
    """
    Leave nothing open behind once the app has shut down: servers may end the process by a signal then.

    uvicorn raises SIGTERM anew after its graceful end, which runs no exit handlers.
    """

    async def resting(message: MutableMapping[str, Any]) -> None:
        pg = Paygent.get_instance()
        if pg is not None and message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
            await asyncio.to_thread(pg.flush, give_back=True)
        await send(message)

    return resting
