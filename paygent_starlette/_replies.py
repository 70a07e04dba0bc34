"""What has been said to the client so far, and how to refuse from there."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from paygent.web.held_start import HeldStart, Step, swallowed
from paygent.web.limit_response import Declined
from paygent.web.request import RequestSlot
from paygent_starlette._answers import Message, Receive, Scope, Send, say_refusal

log = logging.getLogger("paygent")

_WHOLE = frozenset(("http.response.pathsend", "http.response.zerocopysend"))


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

    Drives :class:`~paygent.web.held_start.HeldStart`: a held start is sent with the first chunk, once an LLM
    call of the request is admitted, or after ``defer_start_s``, whichever comes first.
    """

    __slots__ = ("_is_answered", "_receive", "_releasing", "_said", "_scope", "_send", "_slot", "_timer")

    def __init__(self, scope: Scope, receive: Receive, send: Send, slot: RequestSlot) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._slot = slot
        self._said: HeldStart[Message] = HeldStart(_headers_of)
        self._timer: asyncio.TimerHandle | None = None
        self._releasing: asyncio.Task[None] | None = None
        self._is_answered = False  # with the refusal: what the app goes on to send is dropped

    async def send(self, message: Message) -> None:
        """Pass *message* on, the start of a stream not yet."""
        kind = message["type"]
        if self._is_answered:
            return
        if self._slot.unhandled is not None and self.is_cut:  # what the framework adds to hide it is dropped
            self._is_answered = True
            await self.refuse(self._slot.unhandled)
            return
        if kind == "http.response.start":
            await self._begin(message)
            return
        said = self._said
        if said.held is not None or self._releasing is not None:
            await self.finish()
        if kind == "http.response.body":
            said.is_complete = not message.get("more_body", False)
        elif kind in _WHOLE:  # other ways to send a body
            said.is_complete = True
        await self._send(message)

    async def _begin(self, message: Message) -> None:
        slot = self._slot
        refusal = slot.unhandled or swallowed(message["status"], slot.tally.refusal)
        is_sized = _is_sized(message) or slot.tally.has_admitted
        step = self._said.begin(message, refusal, is_sized)
        if step is Step.SEND:
            await self._send(self._telling(message))
        elif step is Step.ANSWER and refusal is not None:
            await self.refuse(refusal)
        elif not self._wait():
            await self.finish()

    @property
    def is_cut(self) -> bool:
        """Whether a response has begun and is not complete: its client has left, or its app failed."""
        return self._said.sent is not None and not self._said.is_complete

    async def finish(self) -> None:
        """Send a start that is still held."""
        if self._releasing is not None:
            releasing, self._releasing = self._releasing, None
            await releasing
        elif (start := self._released()) is not None:
            await self._send(start)

    def drop(self) -> None:
        """Forget a start that is still held: something else will be answered."""
        self._said.held = None
        self._stop_waiting()

    async def refuse(self, refusal: Declined) -> bool:
        """Say *refusal* as well as it still can be said."""
        step = self._said.refuse()
        if step is Step.LATE and not self._is_answered:  # a mounted app raises what it was answered with
            log.warning("a limit was reached after the response was complete: %s", refusal)
        elif step is Step.ANSWER:
            self._stop_waiting()
            self._is_answered = self._said.is_complete = True
            await say_refusal(self._slot, self._scope, self._receive, self._keeping, refusal)
            self._said.held = None
        elif step is Step.EVENT:
            await self.finish()
            self._said.is_complete = True
            event = self._slot.plugin.responder.event(refusal)
            await self._send({"type": "http.response.body", "body": event})
        return step is not Step.CUT

    async def _keeping(self, message: Message) -> None:
        """Send the refusal, with what the start that it replaces says of the request itself."""
        if message["type"] == "http.response.start":
            added = self._said.kept(_headers_of(message))
            message = {**message, "headers": [*message.get("headers", ()), *_encoded(added)]}
        await self._send(message)

    def _wait(self) -> bool:
        """Have the held start sent in time; false where it is not to wait, nor without asyncio's timer."""
        defer_s = self._slot.plugin.options.defer_start_s
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        if not defer_s:
            return False
        self._stop_waiting()
        self._timer = loop.call_later(defer_s, self._expire)
        self._slot.tally.on_admitted = functools.partial(_from_any_thread, loop, self._expire)
        return True

    def _expire(self) -> None:
        start = self._released()
        if start is not None:
            self._releasing = asyncio.ensure_future(self._send(start))
            self._releasing.add_done_callback(_retrieve)

    def _released(self) -> Message | None:
        start = self._said.release()
        if start is None:
            return None
        self._stop_waiting()
        return self._telling(start)

    def _stop_waiting(self) -> None:
        self._slot.tally.on_admitted = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _telling(self, start: Message) -> Message:
        """Return *start*, which tells what the user has used where the app wants that."""
        plugin = self._slot.plugin
        if not plugin.options.usage_headers:
            return start
        told = _encoded((name.lower(), value) for name, value in plugin.headers(self._slot).items())
        return {**start, "headers": [*start.get("headers", ()), *told]}


def _is_sized(start: Message) -> bool:
    """Whether the length is known: no language model writes that response."""
    for name, _ in start.get("headers", ()):
        if name == b"content-length" or name.lower() == b"content-length":
            return True
    return False


def _headers_of(start: Message) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start.get("headers", ())]


def _encoded(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _from_any_thread(loop: asyncio.AbstractEventLoop, told: Callable[[], None]) -> None:
    """Calls may be admitted on any thread, and after the server's loop has ended."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(told)


def _retrieve(task: asyncio.Task[None]) -> None:
    """The client may be gone when the timer sends; whoever sends next hears of it."""
    if not task.cancelled():
        task.exception()
