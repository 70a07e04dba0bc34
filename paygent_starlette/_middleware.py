"""The middleware: a context for each request, and the refusal as an answer."""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from paygent.client import Paygent
from paygent.context import Payer, current_payer, set_payer
from paygent.web.limit_response import LimitResponder, Offer, UpgradeUrl, find_refusal
from paygent_starlette._replies import HTTPReply, Message, Reply, Scope, Send, SocketReply
from paygent_starlette._users import FindUser, from_scope, is_async, resolved, resolved_async

log = logging.getLogger("paygent")

Receive = Callable[[], Awaitable[Message]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

STATE = "paygent"
_REPLIES: dict[str, Callable[[Scope, Send, LimitResponder], Reply]] = {
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

    Place it inside CORS middleware, or browsers hide the refusal from scripts.

    Args:
        get_user_id: Finds the user of a request: called with the ``Request`` (for a WebSocket the
            ``HTTPConnection``), returns an id or ``None`` for nobody. A plain function is called at the first
            LLM call, after everything that signs the user in; an async one is awaited when the request
            begins. By default the user of ``AuthenticationMiddleware``. Code that learns the user late may
            also set ``request.state.paygent.user_id``.
        upgrade_url: Where a blocked user can upgrade: ``https://…`` or a path of this app, with ``{plan}``
            for the present plan; or a function of the refusal.
        expose_amounts: False keeps the numbers of the limit from the user.
        status_code: Status of a spent limit, 429 or 402.
        offers: What to suggest to a user of each plan, by the plan's name.

    Raises:
        ValueError: *upgrade_url* or *status_code* cannot be right.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        get_user_id: FindUser | None = None,
        upgrade_url: UpgradeUrl = None,
        expose_amounts: bool = True,
        status_code: int = 429,
        offers: Mapping[str, Offer] | None = None,
    ) -> None:
        self.app = app
        self._find_user: Callable[[Any], Any] = get_user_id or from_scope
        self._awaits_user = get_user_id is not None and is_async(get_user_id)
        self._responder = LimitResponder(upgrade_url, expose_amounts, status_code, offers or {})
        self._checked = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        make_reply = _REPLIES.get(scope["type"])
        outer = current_payer()
        if make_reply is None or (outer is not None and _is_inside(scope, outer)):
            await self.app(scope, receive, send)
            return
        if not self._checked:
            self._check()
        payer = await self._payer(scope)
        reply = make_reply(scope, send, self._responder)
        set_payer(payer)
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

    async def _payer(self, scope: Scope) -> Payer:
        """The slot that the calls of this connection look into, filled now or at the first of them."""
        payer = Payer(None)
        if self._awaits_user:
            payer.user_id = await resolved_async(self._find_user, scope)
        else:
            payer.resolve = functools.partial(resolved, self._find_user, scope)
        scope.setdefault("state", {})[STATE] = payer
        return payer

    def _check(self) -> None:
        self._checked = True
        if Paygent.get_instance() is None:
            log.warning(
                "PaygentMiddleware runs without Paygent.init(): LLM calls are neither metered nor gated"
            )


def _is_inside(scope: Scope, outer: Payer) -> bool:
    """Whether this middleware is installed twice, and already at work further out."""
    return scope.get("state", {}).get(STATE) is outer
