"""
How the per-call keywords travel from a resource method to the seam: in a private header.

A header is the one thing that every method of both SDKs hands through, also to stream managers that send
later. It carries the keywords as JSON, and as an attribute where the SDK keeps the object; the seam takes it
out before anything is sent.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from paygent.context import Payer, checked_session_id, checked_user_id, current_payer
from paygent.instrumentation._report import report

HEADER = "x-paygent-keywords"
# Of this process, and never sent: a header that somebody else made (an app may forward such) has it not.
_MARK = os.urandom(16).hex()


class Keywords(NamedTuple):
    """The per-call keywords as given; ``given`` says which of them were."""

    user_id: str | None = None
    session_id: str | None = None
    metadata: Mapping[str, Any] | None = None
    given: tuple[str, ...] = ()

    def payer(self) -> Payer:
        """
        Return who pays: the keywords, and what they leave out from the context.

        The context's session belongs to the context's user: it is not taken over for another one.
        """
        context = current_payer() or Payer(None)
        payer = Payer(
            context.user_id,
            context.session_id,
            context.plan,
            {**(context.metadata or {}), **(self.metadata or {})} or None,
            exempt=context.exempt,
            metered=context.metered,
            resolve=context.resolve,
        ).within(context)
        if "user_id" in self.given and self.user_id != context.user_id:
            payer.user_id, payer.session_id, payer.plan = self.user_id, None, None
            payer.resolve, payer.exempt = None, False
        if "session_id" in self.given:
            payer.session_id = self.session_id
        return payer


class Carrier(str):
    """The keywords as a header value."""

    __slots__ = ("keywords",)
    keywords: Keywords

    def encode(self, *_args: Any, **_kwargs: Any) -> bytes:
        """What an HTTP client would send where nobody has taken it out before: nothing of it."""
        return b""


def carrier_of(given: Mapping[str, Any]) -> Carrier:
    """
    Return the header value for the keywords *given*, named without their prefix.

    Raises:
        ValueError: The user or session id is too long, or not encodable.
        TypeError: It is neither text nor a number, or the metadata is no mapping.
    """
    metadata = given.get("metadata")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise TypeError(f"paygent_metadata must be a dict, not {type(metadata).__name__}")
    keywords = Keywords(
        checked_user_id(given.get("user_id")),
        checked_session_id(given.get("session_id")),
        metadata,
        tuple(given),
    )
    carrier = Carrier(f"{_MARK} {json.dumps(keywords, default=str)}")
    carrier.keywords = keywords
    return carrier


def unpack(value: object) -> Keywords | None:
    """Return the keywords in a header value that we have made, also where the SDK made plain text of it."""
    if isinstance(value, Carrier):
        return value.keywords
    import hmac  # a third of `import paygent`, and seldom needed

    mark, _, said = str(value).partition(" ")
    if not hmac.compare_digest(mark.encode("utf-8", "replace"), _MARK.encode()):
        report("take a header from elsewhere", ValueError(HEADER))
        return None
    user_id, session_id, metadata, given = json.loads(said)
    return Keywords(user_id, session_id, metadata, tuple(given))


def stripped(options: Any) -> tuple[Any, list[Any]]:
    """Return *options* without the private header, a copy if it is there, and the values it had."""
    headers = options.headers
    if not isinstance(headers, Mapping):
        return options, []
    values = [value for name, value in headers.items() if name.lower() == HEADER]
    if not values:
        return options, []
    options = copy.copy(options)
    options.headers = {name: value for name, value in headers.items() if name.lower() != HEADER}
    return options, values


def take_carried(options: Any) -> tuple[Any, Keywords | None]:
    """Return *options* without the private header (a copy, if it is there), and the keywords in it."""
    options, values = stripped(options)
    found = [keywords for keywords in map(unpack, values) if keywords is not None]
    return options, found[-1] if found else None
