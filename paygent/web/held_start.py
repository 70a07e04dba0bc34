"""
How far a response has come, and how a refusal can still be said from there: transitions, without I/O.

::

    nothing ──begin──> held ──release──> sent ──> complete
       └──begin, length known────────────^

The start of a response of unknown length is held back until its first chunk: a limit met by what writes it is
then still a clean 429. Drivers (ASGI, WSGI) ask, and send what they are told to.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import Generic, TypeAlias, TypeVar

from paygent.web.limit_response import Declined

H = TypeVar("H")
Headers: TypeAlias = Iterable[tuple[str, str]]

SERVER_ERROR = 500
# What the app said of the body that is not sent; the answer says its own.
_OF_THE_BODY = (
    "content-", "cache-", "etag", "last-modified", "expires", "accept-ranges", "transfer-", "retry-after",
)  # fmt: skip
_ADDED_UP = frozenset(("vary", "set-cookie"))


class Step(enum.Enum):
    """What a driver does next."""

    SEND = "send the start"
    HOLD = "keep the start back"
    ANSWER = "answer with the refusal, and drop what was held and what follows"
    EVENT = "say the refusal as the last event of the body, and end it"
    CUT = "let the error go on to the server: half a body must not look whole"
    LATE = "nothing: the response is complete"


class HeldStart(Generic[H]):
    """
    One response; *H* is the start of one as the server of the driver has it.

    Args:
        headers_of: The headers of a start as text.
    """

    __slots__ = ("_headers_of", "held", "is_complete", "sent")

    def __init__(self, headers_of: Callable[[H], Headers]) -> None:
        self._headers_of = headers_of
        self.held: H | None = None
        self.sent: H | None = None
        self.is_complete = False

    def begin(self, start: H, refusal: Declined | None, is_sized: bool) -> Step:
        """
        The app starts its response.

        Args:
            start: Status and headers.
            refusal: What the app made this response of without knowing it, see :func:`swallowed`.
            is_sized: The length is known: no language model writes that response.
        """
        if self.sent is None and refusal is not None:
            self.held = start
            return Step.ANSWER
        if is_sized or self.sent is not None:
            self.held, self.sent = None, start
            return Step.SEND
        self.held = start
        return Step.HOLD

    def release(self) -> H | None:
        """The held start, to be sent now; ``None`` where none is held."""
        start, self.held = self.held, None
        if start is not None:
            self.sent = start
        return start

    def refuse(self) -> Step:
        """A refusal came out of the app."""
        if self.is_complete:
            return Step.LATE
        if self.sent is None:
            return Step.ANSWER
        return Step.EVENT if is_event_stream(self._headers_of(self.sent)) else Step.CUT

    def kept(self, answer: Headers) -> list[tuple[str, str]]:
        """What the held start says of the request itself, and *answer* does not: cookies, CORS, security."""
        return [] if self.held is None else kept(answer, self._headers_of(self.held))


def kept(answer: Headers, dropped: Headers) -> list[tuple[str, str]]:
    """The headers of a *dropped* response that go into the *answer* sent in its place."""
    own = {name.lower() for name, _ in answer} - _ADDED_UP
    return [
        (name, value)
        for name, value in dropped
        if not name.lower().startswith(_OF_THE_BODY) and name.lower() not in own
    ]


def swallowed(status: int, refusal: Declined | None) -> Declined | None:
    """
    The *refusal* that a response with *status* was made of.

    A catch-all of the framework's or the app's own makes a 500 of it before a plugin can see it.
    """
    return refusal if status == SERVER_ERROR else None


def is_event_stream(headers: Headers) -> bool:
    """Whether an event can be added to the body: not to a compressed one, nor to one of a stated length."""
    said = {name.lower(): value for name, value in headers}
    media = said.get("content-type", "").lower()
    return media.startswith("text/event-stream") and not said.keys() & {"content-encoding", "content-length"}
