"""Putting the plugin into an app: middleware, exception handler, lifespan, the route of a front end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from typing import Any

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from paygent.client import Paygent
from paygent.core.errors import PaygentLimitExceeded, PaygentUnavailable
from paygent.web.limit_response import Declined, LimitResponder, LimitResponse
from paygent.web.request import RequestSlot
from paygent.web.verbs import beside_the_loop
from paygent_starlette._answers import headers_of
from paygent_starlette._middleware import STATE, PaygentMiddleware

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]


def add_paygent(app: Any, **options: Any) -> None:
    """
    Install Paygent in a Starlette, FastAPI or Quart *app*: the middleware, and handlers for its two errors.

    Whenever it is called before the first request, the middleware goes to the inside of all others: CORS
    headers are on its answers, and sessions and users are known. A handler that the app registers itself
    wins.

    Raises:
        ValueError: An option cannot be right.
        TypeError: There is no such option, or *app* is of no kind that is known here.
        RuntimeError: The app is serving already.
    """
    if hasattr(app, "user_middleware"):
        if app.middleware_stack is not None:
            raise RuntimeError("add_paygent() comes too late: the app is serving already")
        PaygentMiddleware(app, **options)  # an option that cannot be right is told now, not at the start
        app.user_middleware.append(Middleware(PaygentMiddleware, **options))
        for error in (PaygentLimitExceeded, PaygentUnavailable):
            app.exception_handlers.setdefault(error, refused)
    elif hasattr(app, "asgi_app"):
        from paygent_starlette._quart import add_to_quart

        add_to_quart(app, options)
    else:
        raise TypeError(f"add_paygent() installs into Starlette, FastAPI and Quart, not {type(app).__name__}")


async def refused(request: Request, error: Exception) -> Response:
    """Answer PaygentLimitExceeded or PaygentUnavailable: the handler that :func:`add_paygent` registers."""
    assert isinstance(error, Declined)
    if request.scope["type"] == "websocket":  # the middleware knows whether it is accepted yet
        raise error
    slot: RequestSlot | None = request.scope.get("state", {}).get(STATE)
    headers = headers_of(request.scope)
    if slot is None:
        return response_of(LimitResponder().response(error, headers))
    answer = await slot.plugin.refuse_async(error, headers, request)
    return response_of(answer) if isinstance(answer, LimitResponse) else answer


def response_of(answer: LimitResponse) -> Response:
    """The framework's form of *answer*."""
    response = Response(answer.body, answer.status)
    response.raw_headers = [
        (name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers
    ]
    return response


def paygent_lifespan(lifespan: Lifespan | None = None, **init: Any) -> Lifespan:
    """
    Make an app's lifespan that begins with ``Paygent.init(**init)`` and ends with its shutdown.

    Where the app has called ``init`` itself, that one stays, and is flushed at the end.

    Args:
        lifespan: The app's own, run inside.
    """

    @asynccontextmanager
    async def composed(app: Any) -> AsyncIterator[Any]:
        own = Paygent.get_instance() is None
        pg = await asyncio.to_thread(lambda: Paygent.get_instance() or Paygent.init(**init))
        try:
            async with lifespan(app) if lifespan is not None else nullcontext() as state:
                yield state
        finally:
            await asyncio.to_thread(pg.shutdown if own else partial(pg.flush, give_back=True))

    return composed


async def me_endpoint(request: Request) -> Response:
    """
    Answer ``GET …/paygent/me``: where the signed-in user stands, as JSON for the app's own front end.

    Under FastAPI give it the dependency that signs the user in::

        app.get("/paygent/me", dependencies=[Depends(paygent_user(get_current_user))])(me_endpoint)
    """
    slot: RequestSlot | None = request.scope.get("state", {}).get(STATE)
    if slot is None:  # the option enabled=False
        return Response(status_code=404)
    return response_of(await beside_the_loop(slot, lambda: slot.plugin.me(slot.user_id)))


def me_route(path: str = "/paygent/me") -> Route:
    """The route of :func:`me_endpoint`."""
    return Route(path, me_endpoint, methods=["GET"], name="paygent:me")
