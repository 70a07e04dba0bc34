"""Who a request belongs to."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from flask import Request, current_app, request, session

from paygent.web.exemptions import Place
from paygent.web.options import WebOptions, is_async
from paygent.web.waiting import on_own_thread
from paygent_flask._exchange import Exchange, exchange_of

_FINDERS = ("get_user_id", "get_session_id", "get_plan", "metadata", "anonymous", "on_limit")


def signed_in(_request: Request) -> object:
    """
    The user of Flask-Login where the app uses it, else ``session["user_id"]``, as in Flask's tutorial.

    Reading either marks the session as accessed, so that the response gets its ``Vary: Cookie``.
    """
    if not hasattr(current_app, "login_manager"):
        return session.get("user_id")
    from flask_login import current_user  # type: ignore[import-untyped]  # it ships no types

    return current_user.get_id() if current_user and current_user.is_authenticated else None


def place_of(request: Request) -> Place:
    """Path and endpoint of *request*."""
    return Place(request.path, request.endpoint)


def request_of(exchange: Exchange | None) -> Request:
    """The app's request object; without an exchange that of the running request."""
    found: Request = _running() if exchange is None else exchange.inside(_running)
    return found


def _running() -> Request:
    return request._get_current_object()  # type: ignore[attr-defined,no-any-return]  # noqa: SLF001


def bound(options: WebOptions) -> WebOptions:
    """
    Return *options* with every function called in its request's context, whenever it is called.

    Async functions become plain ones: who waits for them is a view, which Flask runs on a thread.
    """
    wrapped = {name: getattr(options, name) for name in _FINDERS}
    changes: dict[str, Any] = {
        name: in_its_request(found) for name, found in wrapped.items() if callable(found)
    }
    exempt = tuple(in_its_request(item) if callable(item) else item for item in options.exempt)
    return dataclasses.replace(options, exempt=exempt, **changes)


def in_its_request(function: Callable[..., Any]) -> Callable[..., Any]:
    """Have *function*, which gets a request, called in that request's context."""
    call = _waiting(function) if is_async(function) else function

    def found(request: Request, *rest: Any) -> Any:
        exchange = exchange_of(request.environ)
        return call(request, *rest) if exchange is None else exchange.inside(call, request, *rest)

    return found


def _waiting(function: Callable[..., Any]) -> Callable[..., Any]:
    """Have the async *function* run to its end; on another thread where this one runs an event loop."""

    def call(*args: Any) -> Any:
        run = current_app.async_to_sync(function)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return run(*args)
        return on_own_thread(copy_context().run, run, *args)

    return call
