"""The dashboard as a blueprint."""

from __future__ import annotations

import inspect
from typing import Any

from flask import Blueprint, Response, abort, current_app, request, url_for

from paygent.client import Paygent
from paygent.dashboard import Authorize, Dashboard
from paygent.web.options import is_async
from paygent_flask._exchange import response_of

NAME = "paygent_dashboard"
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]  # refused alike to whoever is nobody


def dashboard(
    pg: Paygent | None = None, *, authorize: Authorize, name: str = NAME, url_prefix: str = "/paygent"
) -> Blueprint:
    """
    Make the admin views of an app without Django: ``app.register_blueprint(dashboard(pg, authorize=…))``.

    Overview, users, one user with his limits and gate events, plans. They only read.

    Args:
        pg: Whose ledger to show; ``None``: the process's Paygent at the time of each request.
        authorize: Gets the request, plain or async. Whatever it returns but ``True`` is answered with the
            app's 404; what it raises (``abort``) goes to the app.

    Raises:
        TypeError: There is no *authorize*.
    """
    board = Dashboard(pg, authorize)
    blueprint = Blueprint(name, __name__, url_prefix=url_prefix)

    def page(path: str = "") -> Response:
        if not board.allows(_said(authorize)):
            abort(404)
        root = url_for(".page").rstrip("/")
        return response_of(board.answer(request.method, path, request.query_string.decode("latin-1"), root))

    rule: dict[str, Any] = {"methods": _METHODS, "provide_automatic_options": False}
    blueprint.add_url_rule("/", "page", page, **rule)
    blueprint.add_url_rule("/<path:path>", "page", page, **rule)
    return blueprint


def _said(authorize: Authorize) -> object:
    asked: Any = request._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001  # the request behind the proxy
    if is_async(authorize):
        return current_app.async_to_sync(authorize)(asked)  # type: ignore[arg-type]  # it was just found out
    said = authorize(asked)
    if inspect.iscoroutine(said):
        said.close()  # it refuses: nobody here waits for it
    return said
