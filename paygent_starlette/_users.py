"""Who a request belongs to, and where it goes, as Starlette and its kin say it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any

from anyio import from_thread
from starlette.requests import HTTPConnection, Request

from paygent.web.exemptions import Place
from paygent.web.waiting import on_loop

Scope = MutableMapping[str, Any]

LOOP = "paygent.loop"  # in the scope, where an option is async
_NAMES = ("identity", "id", "pk", "user_id", "sub", "username")  # of attributes, or of the keys of a token


def connection_of(scope: Scope) -> HTTPConnection:
    """The request, or for a WebSocket its connection."""
    return Request(scope) if scope["type"] == "http" else HTTPConnection(scope)


def await_here(find: Callable[[Any], Awaitable[Any]], connection: Any) -> Any:
    """
    Run *find* on the event loop of the request, from a worker thread or a thread of the app's own.

    Raises:
        CannotAwaitError: This is the event loop's own thread, or that loop stands still.
    """
    begun = False

    async def run() -> Any:
        nonlocal begun
        begun = True
        return await find(connection)

    try:
        return from_thread.run(run)
    except RuntimeError:  # no worker thread of Starlette's
        if begun:
            raise
    return on_loop(run, connection.scope.get(LOOP))


def user_of(connection: Any) -> object:
    """The user that some authentication has put into the scope, if there is one and he is signed in."""
    return id_of(connection.scope.get("user"))


def id_of(user: object) -> object:
    """
    The id of a signed-in *user*: text or a number as it is, of a token or an object its first name of a user.

    ``None`` for nobody, which a user with a false ``is_authenticated`` is too.
    """
    if user is None or isinstance(user, (str, int)):
        return user
    if isinstance(user, Mapping):
        return next((user[name] for name in _NAMES if user.get(name) is not None), None)
    if not getattr(user, "is_authenticated", True):
        return None
    for name in _NAMES:
        try:
            found: object = getattr(user, name, None)
        except NotImplementedError:  # Starlette's BaseUser leaves `identity` to its subclasses
            continue
        if found is not None:
            return found
    return None


def place_of(connection: Any) -> Place:
    """Path and route of *connection*; the route is known once the app's router has found it."""
    scope = connection.scope
    return Place(scope.get("path", ""), _route_name(scope))


def _route_name(scope: Scope) -> str | None:
    """The full name of the route, as ``url_for`` takes it; older Starlettes name its endpoint only."""
    found = scope.get("route") or scope.get("route_handler")
    endpoint = scope.get("endpoint")
    for route, name in _named(getattr(scope.get("app"), "routes", ())):
        if route is found or (found is None and getattr(route, "endpoint", scope) is endpoint):
            return name
    own = getattr(found, "name", None)
    return own if isinstance(own, str) else None


def _named(routes: Iterable[Any], prefix: str = "") -> Iterable[tuple[Any, str]]:
    for route in routes:
        name = getattr(route, "name", None) or ""
        if getattr(route, "routes", None):
            yield from _named(route.routes, f"{prefix}{name}:" if name else prefix)
        elif name:
            yield route, prefix + name
