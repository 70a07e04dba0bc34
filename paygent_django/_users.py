"""Who a request belongs to, found without a query of our own unless an LLM call asks for it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from typing import Any

from asgiref.sync import async_to_sync
from django.db import connections
from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject, empty

from paygent.web.options import is_async
from paygent.web.waiting import on_own_thread

_CLAIMS = ("user_id", "sub", "id")
_CACHES = ("_cached_user", "_acached_user")  # of django.contrib.auth


def known_user(request: HttpRequest) -> object:
    """
    The id of a user who is on the request already, without touching session or database; else ``None``.

    In this order: a user whom something assigned (Django REST framework, token middleware, tests); what
    django-ninja found (``request.auth``: a user, something with a ``user``, claims; a bare text may be a
    secret and is no user); Django's own user, if the view has asked for him.
    """
    user = request.__dict__.get("user")
    if isinstance(user, SimpleLazyObject):
        user = None if user.__dict__.get("_wrapped", empty) is empty else user
    for candidate in (
        user,
        _authorized(request),
        *map(request.__dict__.get, ("_cached_user", "_acached_user")),
    ):
        found = _id_of(candidate)
        if found is not None:
            return found
    return None


def default_user(request: HttpRequest) -> object:
    """The id of the signed-in user; may read the session and the database."""
    found = known_user(request)
    if found is not None or _is_settled(request):
        return found
    return anywhere(_loaded_user)(request)


def _loaded_user(request: HttpRequest) -> object:
    return _id_of(getattr(request, "user", None))


def _is_settled(request: HttpRequest) -> bool:
    """Whether Django has looked already, and found nobody."""
    return any(name in request.__dict__ for name in _CACHES)


def _authorized(request: HttpRequest) -> object:
    auth = request.__dict__.get("auth")
    if isinstance(auth, Mapping):
        return next((auth[name] for name in _CLAIMS if auth.get(name)), None)
    if auth is None or isinstance(auth, (str, bytes)) or hasattr(auth, "is_authenticated"):
        return None if isinstance(auth, (str, bytes)) else auth
    return getattr(auth, "user", None) or getattr(auth, "user_id", None)


def _id_of(user: object) -> object:
    """The primary key of a user who is signed in; a bare key stands for itself."""
    if user is None or isinstance(user, (str, int)):
        return user
    return getattr(user, "pk", None) if getattr(user, "is_authenticated", False) else None


def anywhere(find: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """
    Let *find*, plain or async, be called wherever an LLM call is made, and use the database there.

    Django closes the database to event loops. Async LLM calls look on the request's own thread before they
    begin; a plain one within an async view, which stops the loop anyway, looks on a thread made for it.
    """
    plain = async_to_sync(find) if is_async(find) else find

    @functools.wraps(find)
    def found(request: Any) -> Any:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return plain(request)
        return on_own_thread(_with_own_connections, plain, request)

    return found


def _with_own_connections(find: Callable[[Any], Any], request: Any) -> Any:
    try:
        return find(request)
    finally:
        connections.close_all()
