"""A WebSocket connection, and how to refuse a call of it."""

from __future__ import annotations

import logging

from paygent.web.limit_response import Declined
from paygent.web.request import RequestSlot
from paygent_starlette._answers import Message, Receive, Scope, Send, say_refusal

log = logging.getLogger("paygent")

POLICY_VIOLATION, TRY_AGAIN_LATER = 1008, 1013  # RFC 6455 and its registry of close codes


class SocketReply:
    """One WebSocket connection: refused before it is accepted, or closed."""

    is_cut = False  # its app hears of a client who leaves

    __slots__ = ("_accepted", "_closed", "_receive", "_replaced", "_scope", "_send", "_slot")

    def __init__(self, scope: Scope, receive: Receive, send: Send, slot: RequestSlot) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._slot = slot
        self._accepted = self._closed = self._replaced = False

    async def send(self, message: Message) -> None:
        """Pass *message* on."""
        kind = message["type"]
        refusal = self._slot.unhandled
        if refusal is not None:  # the framework made a close of its own of the refusal
            self._slot.unhandled = None
            self._replaced = await self.refuse(refusal)
        if self._replaced:
            return
        if kind == "websocket.accept":
            self._accepted = True
        elif kind in ("websocket.close", "websocket.http.response.start"):
            self._closed = True
        await self._send(message)

    async def finish(self) -> None:
        """Nothing is held back."""

    def drop(self) -> None:
        """Nothing is held back."""

    async def refuse(self, refusal: Declined) -> bool:
        """Answer the handshake with the refusal where the server can; else close with its code as reason."""
        if self._closed:
            log.warning("a limit was reached after the connection was closed: %s", refusal)
        elif not self._accepted and "websocket.http.response" in (self._scope.get("extensions") or ()):
            await say_refusal(self._slot, self._scope, self._receive, self.send, refusal)
        else:
            problem = self._slot.plugin.responder.problem(refusal)
            code = TRY_AGAIN_LATER if problem["retryable"] else POLICY_VIOLATION
            await self.send({"type": "websocket.close", "code": code, "reason": problem["code"]})
        return True
