"""What has been said to the client so far, and how to refuse from there."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable
from typing import Protocol

from paygent.web.limit_response import Declined
from paygent.web.request import RequestSlot
from paygent_starlette._answers import Message, Receive, Scope, Send, say_refusal

log = logging.getLogger("paygent")

SERVER_ERROR = 500


class Reply(Protocol):
    """What the middleware needs of a connection."""

    @property
    def is_cut(self) -> bool:
        """Whether a response has begun and is not complete."""

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

    The start of a response of unknown length is held back until its first chunk, until an LLM call of the
    request is admitted, or for ``defer_start_s``, whichever comes first: a limit met by the generator behind
    it can still become a clean 429.
    """

    __slots__ = ("_done", "_held", "_receive", "_releasing", "_scope", "_send", "_slot", "_start", "_timer")

    def __init__(self, scope: Scope, receive: Receive, send: Send, slot: RequestSlot) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._slot = slot
        self._start: Message | None = None  # as sent, or about to be sent by the timer
        self._held: Message | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._releasing: asyncio.Task[None] | None = None
        self._done = False

    async def send(self, message: Message) -> None:
        """Pass *message* on, the start of a stream not yet."""
        kind = message["type"]
        if kind == "http.response.start" and message["status"] == SERVER_ERROR:
            self._slot.unhandled = self._slot.refusal  # a catch-all of the app's has made this of it
        if self._slot.unhandled is not None:
            await self._say_instead(self._slot.unhandled)
            return
        if kind == "http.response.start":
            if _is_sized(message) or self._slot.tally.has_admitted or not self._hold(message):
                await self._send(self._starting(message))
            return
        if self._held is not None or self._releasing is not None:
            await self.finish()
        if kind == "http.response.body":
            self._done = not message.get("more_body", False)
        elif self._start is not None:  # other ways to send a body, whole
            self._done = self._done or kind in ("http.response.pathsend", "http.response.zerocopysend")
        await self._send(message)

    async def _say_instead(self, refusal: Declined) -> None:
        """The framework made an error page of the refusal: it is dropped for the refusal itself."""
        if not self._done and self._start is None:
            await self.refuse(refusal)

    @property
    def is_cut(self) -> bool:
        """Whether a response has begun and is not complete: its client has left, or its app failed."""
        return not self._done and self._start is not None

    async def finish(self) -> None:
        """Send a start that is still held."""
        if self._releasing is not None:
            releasing, self._releasing = self._releasing, None
            await releasing
        elif self._held is not None:
            await self._send(self._released())

    def drop(self) -> None:
        """Forget a start that is still held: something else will be answered."""
        self._held = self._slot.tally.on_admitted = None
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
            self._done = True
            await say_refusal(self._slot, self._scope, self._receive, self._send, refusal)
        elif _is_event_stream(self._start):
            await self.finish()
            self._done = True
            await self._send(
                {"type": "http.response.body", "body": self._slot.plugin.responder.event(refusal)}
            )
        else:
            return False
        return True

    def _hold(self, message: Message) -> bool:
        """Hold *message* back; not without asyncio, whose timer is needed."""
        self.drop()
        defer_s = self._slot.plugin.options.defer_start_s
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        if not defer_s:
            return False
        self._timer = loop.call_later(defer_s, self._expire)
        self._held = message
        self._slot.tally.on_admitted = functools.partial(_from_any_thread, loop, self._expire)
        return True

    def _released(self) -> Message:
        assert self._held is not None
        message = self._held
        self.drop()
        return self._starting(message)

    def _starting(self, message: Message) -> Message:
        """Note that the response starts with *message*, and tell in it what the user has used."""
        plugin = self._slot.plugin
        if plugin.options.usage_headers:
            usage = plugin.headers(self._slot)
            told = [(name.lower().encode(), value.encode()) for name, value in usage.items()]
            message = {**message, "headers": [*message.get("headers", ()), *told]}
        self._start = message
        return message

    def _expire(self) -> None:
        if self._held is not None:
            self._releasing = asyncio.ensure_future(self._send(self._released()))
            self._releasing.add_done_callback(_retrieve)


def _is_sized(start: Message) -> bool:
    """Whether the length is known: no language model writes that response."""
    return any(name == b"content-length" for name, _ in start.get("headers", ()))


def _is_event_stream(start: Message) -> bool:
    """Whether text can be added to the body as an event; not to a compressed one."""
    headers = {name.lower(): value for name, value in start.get("headers", ())}
    media: bytes = headers.get(b"content-type", b"")
    return b"content-encoding" not in headers and media.lower().startswith(b"text/event-stream")


def _from_any_thread(loop: asyncio.AbstractEventLoop, told: Callable[[], None]) -> None:
    """Calls may be admitted on any thread, and after the server's loop has ended."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(told)


def _retrieve(task: asyncio.Task[None]) -> None:
    """The client may be gone when the timer sends; whoever sends next hears of it."""
    if not task.cancelled():
        task.exception()
