"""The dashboard as an ASGI app to mount."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.websockets import WebSocketClose

from paygent.client import Paygent
from paygent.dashboard import Authorize, Dashboard
from paygent.web.options import is_async
from paygent_starlette._apps import response_of


class DashboardApp:
    """What :func:`dashboard` returns."""

    def __init__(self, board: Dashboard) -> None:
        self._board = board

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request."""
        if scope["type"] == "websocket":
            await WebSocketClose()(scope, receive, send)
        elif scope["type"] == "http":
            response = await self._answer(Request(scope, receive))
            await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        board = self._board
        if not board.allows(await _said(board.authorize, request)):
            if "app" in request.scope:  # the app's own answer to what is not there
                raise HTTPException(404)
            return PlainTextResponse("Not Found", 404)
        root = request.scope.get("root_path", "").rstrip("/")
        path = request.scope["path"]
        path = path[len(root) :] if path == root or path.startswith(root + "/") else path
        query = request.scope["query_string"].decode("latin-1")
        return response_of(
            await asyncio.to_thread(board.answer, request.method, path.lstrip("/"), query, root)
        )


def dashboard(pg: Paygent | None = None, *, authorize: Authorize) -> DashboardApp:
    """
    Make the admin views of an app without Django: overview, users, one user, plans. They only read.

    To be mounted, as in ``Mount("/paygent", dashboard(pg, authorize=…))``, under FastAPI as in
    ``app.mount("/paygent", dashboard(pg, authorize=…))``.

    Args:
        pg: Whose ledger to show; ``None``: the process's Paygent at the time of each request.
        authorize: Gets the request, plain or async. Whatever it returns but ``True`` is answered with the
            app's 404; what it raises (a redirect to the login) goes to the app.

    Raises:
        TypeError: There is no *authorize*.
    """
    return DashboardApp(Dashboard(pg, authorize))


async def _said(authorize: Authorize, request: Request) -> object:
    """A plain function may ask a database: it runs on a thread."""
    if is_async(authorize):
        said: Any = authorize(request)
    else:
        said = await run_in_threadpool(authorize, request)
    return await said if inspect.isawaitable(said) else said
