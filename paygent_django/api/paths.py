"""
User ids in paths: any text, percent-encoded, slashes included.

A server hands Django the path decoded, where the slash of an id looks like any other. So the path is taken as
it was sent, resolved while its segments are still encoded, and each parameter decoded after that.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, unquote

from django.http import HttpRequest

_RAW = ("RAW_URI", "REQUEST_URI")  # gunicorn, waitress; uWSGI and mod_wsgi
# Where a server says nothing of the path as it was sent: the longest id that leaves a known ending.
_USER_PATH = re.compile(r"users/(.+?)(/(?:subscription|session|usage|gate-events|totals))?", re.DOTALL)


def encoded(request: HttpRequest, rest: str) -> str:
    """*rest*, the decoded end of the request's path, with its segments percent-encoded as they were sent."""
    raw = _raw_path(request)
    if raw is not None:
        above = request.path[: len(request.path) - len(rest)].count("/")
        parts = raw.split("/", above)
        if len(parts) == above + 1 and unquote(parts[-1]) == rest:
            return parts[-1]
    match = _USER_PATH.fullmatch(rest)
    if match is None:
        return quote(rest, safe="/")
    return f"users/{quote(match[1], safe='')}{match[2] or ''}"


def decoded(parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a path that was resolved encoded."""
    return {name: unquote(value) if isinstance(value, str) else value for name, value in parameters.items()}


def _raw_path(request: HttpRequest) -> str | None:
    scope = getattr(request, "scope", None)
    if scope is not None:
        raw: bytes | None = scope.get("raw_path")
        return None if raw is None else raw.decode("latin-1").partition("?")[0]
    sent = next((request.META[name] for name in _RAW if request.META.get(name)), None)
    if sent is None:
        return None
    path = str(sent).partition("?")[0]
    return re.sub(r"^[a-z][a-z0-9+.-]*://[^/]*", "", path, flags=re.IGNORECASE)
