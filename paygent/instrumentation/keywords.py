"""
The per-call keywords ``paygent_user_id``, ``paygent_session_id`` and ``paygent_metadata`` on SDK methods.

The SDKs' signatures refuse unknown keywords, so each resource method gets a thin wrapper that takes them off
and puts them into a private header; the gate stays at the seam. ``connect()`` of the WebSocket surfaces never
reaches the seam: there the wrapper says once that nothing is metered.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

from paygent._once import Once
from paygent.instrumentation._report import guarded, log
from paygent.instrumentation.carrier import HEADER, carrier_of
from paygent.meter import active

PREFIX = "paygent_"
_NAMES = {PREFIX + name: name for name in ("user_id", "session_id", "metadata")}
_RESOURCES = frozenset(("SyncAPIResource", "AsyncAPIResource"))

# Whether any call has ever used a keyword: until then the seam need not look for the header.
used = False

_patches: list[tuple[type, str, Any, Any]] = []  # class, method, our wrapper, the original
_warned = Once()


def patch_module(module: ModuleType) -> None:
    """Give every method of the resource classes that *module* defines the per-call keywords."""
    for owner in list(vars(module).values()):
        # Not isinstance(): it would load the optional packages that OpenAI's modules hold stand-ins for.
        if issubclass(type(owner), type) and owner.__module__ == module.__name__ and _is_resource(owner):
            for name, method in list(vars(owner).items()):
                _patch_method(owner, name, method)


def restore() -> None:
    """Take the wrappers off that are still the methods of their classes."""
    while _patches:
        owner, name, wrapper, original = _patches.pop()
        if vars(owner).get(name) is wrapper:
            setattr(owner, name, original)


def _is_resource(owner: type) -> bool:
    return any(base.__name__ in _RESOURCES for base in owner.__mro__[1:])


def _patch_method(owner: type, name: str, method: Any) -> None:
    if not isinstance(method, FunctionType) or hasattr(method, "__paygent__"):
        return
    if name == "connect":
        wrapper = _telling(method, f"openai {owner.__name__.removeprefix('Async').lower()}.connect()")
    elif _takes_headers(method):
        wrapper = _lifting(method)
    else:
        return
    wrapper.__paygent__ = True  # type: ignore[attr-defined]  # a mark for the next patch_module
    setattr(owner, name, wrapper)
    _patches.append((owner, name, wrapper, method))


def _takes_headers(method: Any) -> bool:
    code = inspect.unwrap(method).__code__
    return "extra_headers" in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def _lifting(method: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(method) and sys.version_info < (3, 12):

        @functools.wraps(method)
        async def awaiting(self: Any, *args: Any, **kwargs: Any) -> Any:
            if PREFIX in "".join(kwargs):
                kwargs = _lift(kwargs)
            return await method(self, *args, **kwargs)

        return awaiting

    @functools.wraps(method)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        # One look at all the names costs less than one at each.
        if PREFIX in "".join(kwargs):
            kwargs = _lift(kwargs)
        return method(self, *args, **kwargs)

    if inspect.iscoroutinefunction(method) and sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(wrapper)
    return wrapper


def _telling(method: Callable[..., Any], what: str) -> Callable[..., Any]:
    @functools.wraps(method)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        with guarded("tell of an unmetered surface"):
            meter: Any = active.get()
            if meter is not None:
                meter.unmetered(what)
        return method(self, *args, **_split(kwargs)[1])

    return wrapper


def _lift(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return *kwargs* with the keywords moved into the private header; without a meter they are left out."""
    global used  # noqa: PLW0603  # read at the seam, for speed
    given, rest = _split(kwargs)
    if given and active.get() is not None:
        headers = rest.get("extra_headers")
        rest["extra_headers"] = {**(headers or {}), HEADER: carrier_of(given)}
        used = True
    return rest


def _split(kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return our keywords, named without their prefix, and the others; misspelt ones are left out of both."""
    given: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for name, value in kwargs.items():
        if not name.startswith(PREFIX):
            rest[name] = value
        elif name in _NAMES:
            given[_NAMES[name]] = value
        elif _warned.is_new(name):
            log.warning(
                "Paygent does not know the keyword %r and leaves it out; it knows %s", name, list(_NAMES)
            )
    return given, rest
