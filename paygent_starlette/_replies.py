"""What has been said to the client so far, and how to refuse from there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from paygent.web.limit_response import Declined, LimitResponder, LimitResponse

log = logging.getLogger("paygent")

HOLD_S = 1.0  # the longest a response's start waits for its first chunk
POLICY_VIOLATION, TRY_AGAIN_LATER = 1008, 1013  # RFC 6455 and its registry of close codes

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


class Reply(Protocol):
    """What the middleware needs of a connection."""

    async def send(self, message: Message) -> None:
        """Pass *message* on."""

    async def finish(self) -> None:
        """Send what is still held back."""

    def drop(self) -> None:
        """Forget what is still held back."""

    async def refuse(self, refusal: Declined) -> bool:
        """Say *refusal*; false where nothing can be said any more."""


class HTTPReply:
    """
    One response on its way to the client.

    The start of a response of unknown length is held back until its first chunk, for one second at most: a
    limit met by the generator behind it can still become a clean 429.
    """

    __slots__ = ("_done", "_held", "_releasing", "_responder", "_scope", "_send", "_start", "_timer")

    def __init__(self, scope: Scope, send: Send, responder: LimitResponder) -> None:
        self._scope = scope
        self._send = send
        self._responder = responder
        self._start: Message | None = None  # as sent, or about to be sent by the timer
        self._held: Message | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._releasing: asyncio.Task[None] | None = None
        self._done = False

    async def send(self, message: Message) -> None:
        """Pass *message* on, the start of a stream not yet."""
        kind = message["type"]
        if kind == "http.response.start":
            if _is_sized(message) or not self._hold(message):
                self._start = message
                await self._send(message)
            return
        if self._held is not None or self._releasing is not None:
            await self.finish()
        if kind == "http.response.body":
            self._done = not message.get("more_body", False)
        elif self._start is not None:  # other ways to send a body, whole
            self._done = self._done or kind in ("http.response.pathsend", "http.response.zerocopysend")
        await self._send(message)

    async def finish(self) -> None:
        """Send a start that is still held."""
        if self._releasing is not None:
            releasing, self._releasing = self._releasing, None
            await releasing
        elif self._held is not None:
            await self._send(self._released())

    def drop(self) -> None:
        """Forget a start that is still held: something else will be answered."""
        self._held = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def refuse(self, refusal: Declined) -> bool:
        """
        Say *refusal* as well as it still can be said.

        False where half of a body that is no event stream has gone out: it must not end as if it were whole.
        """
        if self._done:
            log.warning("a limit was reached after the response was complete: %s", refusal)
        elif self._start is None:
            self.drop()
            await self._answer(self._responder.response(refusal, _headers(self._scope)))
        elif _is_event_stream(self._start):
            await self.finish()
            self._done = True
            await self._send({"type": "http.response.body", "body": self._responder.event(refusal)})
        else:
            return False
        return True

    async def _answer(self, answer: LimitResponse) -> None:
        body = b"" if self._scope.get("method") == "HEAD" else answer.body
        self._done = True
        await self._send(_start("http.response.start", answer))
        await self._send({"type": "http.response.body", "body": body})

    def _hold(self, message: Message) -> bool:
        """Hold *message* back; not without asyncio, whose timer is needed."""
        self.drop()
        try:
            self._timer = asyncio.get_running_loop().call_later(HOLD_S, self._expire)
        except RuntimeError:
            return False
        self._held = message
        return True

    def _released(self) -> Message:
        assert self._held is not None
        self._start = message = self._held
        self.drop()
        return message

    def _expire(self) -> None:
        if self._held is not None:
            self._releasing = asyncio.ensure_future(self._send(self._released()))
            self._releasing.add_done_callback(_retrieve)


class SocketReply:
    """One WebSocket connection: refused before it is accepted, or closed."""

    __slots__ = ("_accepted", "_closed", "_responder", "_scope", "_send")

    def __init__(self, scope: Scope, send: Send, responder: LimitResponder) -> None:
        self._scope = scope
        self._send = send
        self._responder = responder
        self._accepted = self._closed = False

    async def send(self, message: Message) -> None:
        """Pass *message* on."""
        kind = message["type"]
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
            answer = self._responder.response(refusal, _headers(self._scope))
            await self.send(_start("websocket.http.response.start", answer))
            await self.send({"type": "websocket.http.response.body", "body": answer.body})
        else:
            problem = self._responder.problem(refusal)
            code = TRY_AGAIN_LATER if problem["retryable"] else POLICY_VIOLATION
            await self.send({"type": "websocket.close", "code": code, "reason": problem["code"]})
        return True


def _start(kind: str, answer: LimitResponse) -> Message:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    return {"type": kind, "status": answer.status, "headers": headers}


def _headers(scope: Scope) -> dict[str, str]:
    """The request's headers as text; of a repeated one all values, as RFC 9110 joins them."""
    joined: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined


def _is_sized(start: Message) -> bool:
    """Whether the length is known: no language model writes that response."""
    return any(name == b"content-length" for name, _ in start.get("headers", ()))


def _is_event_stream(start: Message) -> bool:
    """Whether text can be added to the body as an event; not to a compressed one."""
    headers = {name.lower(): value for name, value in start.get("headers", ())}
    media: bytes = headers.get(b"content-type", b"")
    return b"content-encoding" not in headers and media.lower().startswith(b"text/event-stream")


def _retrieve(task: asyncio.Task[None]) -> None:
    """The client may be gone when the timer sends; whoever sends next hears of it."""
    if not task.cancelled():
        task.exception()
