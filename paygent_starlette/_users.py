"""Who a request belongs to."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.requests import HTTPConnection, Request

from paygent.context import checked_user_id

log = logging.getLogger("paygent")

Scope = MutableMapping[str, Any]
UserId = str | int | None
# Called with a Request (http) or an HTTPConnection (websocket); ``Any``, so that either annotation fits.
FindUser = Callable[[Any], UserId] | Callable[[Any], Awaitable[UserId]]

_NAMES = ("identity", "id", "username")
_FAILED = "get_user_id failed: the LLM calls of this connection belong to nobody"


def is_async(find_user: FindUser) -> bool:
    """Whether calling *find_user* gives something to await: functions, and objects with ``__call__``."""
    return inspect.iscoroutinefunction(find_user) or inspect.iscoroutinefunction(
        getattr(find_user, "__call__", None)  # noqa: B004  # an instance's own, which may be async
    )


def from_scope(connection: HTTPConnection) -> object:
    """
    The user that ``AuthenticationMiddleware`` has put into the scope, if there is one and he is signed in.

    Takes the first of ``identity``, ``id`` and ``username`` that the user has.
    """
    user = connection.scope.get("user")
    if user is None or not getattr(user, "is_authenticated", True):
        return None
    for name in _NAMES:
        try:
            found: object = getattr(user, name, None)
        except NotImplementedError:  # Starlette's BaseUser leaves `identity` to its subclasses
            continue
        if found is not None:
            return found
    return None


def resolved(find_user: Callable[[Any], object], scope: Scope) -> str | None:
    """Ask *find_user* now; a fault in it is logged and leaves the call to nobody."""
    try:
        return checked_user_id(find_user(_connection(scope)))
    except Exception:
        log.exception(_FAILED)
        return None


async def resolved_async(find_user: Callable[[Any], Awaitable[object]], scope: Scope) -> str | None:
    """The asynchronous twin of :func:`resolved`."""
    try:
        return checked_user_id(await find_user(_connection(scope)))
    except Exception:
        log.exception(_FAILED)
        return None


def _connection(scope: Scope) -> HTTPConnection:
    return Request(scope) if scope["type"] == "http" else HTTPConnection(scope)
