"""
The seam: ``request`` of the base clients of both SDKs, one attribute each for sync and async.

Every billable method of both SDKs passes it once per logical call, above the SDK's own retries; clients,
resources and bound methods made before the patch look it up at call time, so that they are covered too.
The wrappers live on the classes; each asks for the process's active meter at the moment of a call.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from paygent._forking import ProcessLock
from paygent.context import Payer, current_payer
from paygent.core.errors import VISIBLE
from paygent.instrumentation import imports, keywords
from paygent.instrumentation._report import log, report
from paygent.instrumentation.carrier import stripped
from paygent.instrumentation.exchange import Exchange, Passed, open_exchange
from paygent.instrumentation.jobs import WATCHED
from paygent.meter import active

PROVIDERS = ("openai", "anthropic")
_CLASSES = ("SyncAPIClient", "AsyncAPIClient")

_lock = ProcessLock()
_patches: dict[str, tuple[type, Any, Any]] = {}  # key: (class, our wrapper, the original)
_live = False


def begin(provider: str, client: Any, options: Any, kwargs: Mapping[str, Any]) -> Exchange | Passed | None:
    """
    Return the exchange for a request about to be made; ``None`` lets it pass as it is.

    Raises:
        PaygentLimitExceeded: Nobody pays, and such calls are to be blocked.
    """
    if not _live:
        return _passed(options)
    try:
        if options.method == "get" and not keywords.used and not options.url.startswith(WATCHED[provider]):
            return None
        meter: Any = active.get()
        return _passed(options) if meter is None else open_exchange(meter, provider, client, options, kwargs)
    except VISIBLE:
        raise
    except Exception as error:  # noqa: BLE001  # the boundary between our faults and the caller
        report("look at a request", error)
        return _passed(options)


def _passed(options: Any) -> Passed | None:
    """Let a request pass, without what our keywords left in it: the provider must not learn of our users."""
    return Passed(stripped(options)[0]) if keywords.used else None


async def _identified(payer: Payer) -> None:
    """Let a web plugin find the user where only awaiting can; a fault in that leaves the call to nobody."""
    try:
        if payer.identify is not None:
            await payer.identify()
    except VISIBLE:
        raise
    except Exception as error:  # noqa: BLE001  # the boundary between our faults and the caller
        report("find the user", error)


# --- the twins --------------------------------------------------------------------------------------------


def _sync_request(original: Callable[..., Any], provider: str) -> Callable[..., Any]:
    @functools.wraps(original)
    def request(self: Any, cast_to: Any, options: Any, *args: Any, **kwargs: Any) -> Any:
        exchange = begin(provider, self, options, kwargs)
        if exchange is None:
            return original(self, cast_to, options, *args, **kwargs)
        with exchange.call:
            result = original(self, cast_to, exchange.options, *args, **kwargs)
            exchange.receive(result)
        return result

    return request


def _async_request(original: Callable[..., Any], provider: str) -> Callable[..., Any]:
    @functools.wraps(original)
    async def request(self: Any, cast_to: Any, options: Any, *args: Any, **kwargs: Any) -> Any:
        payer = current_payer()
        if payer is not None and payer.identify is not None:
            await _identified(payer)
        exchange = begin(provider, self, options, kwargs)
        if exchange is None:
            return await original(self, cast_to, options, *args, **kwargs)
        async with exchange.call:
            result = await original(self, cast_to, exchange.options, *args, **kwargs)
            exchange.receive(result)
        return result

    return request


# --- putting it in place ----------------------------------------------------------------------------------


def instrument() -> list[str]:
    """
    Meter the SDKs: those already imported now, the others when they are imported.

    Returns the keys of the patches in place so far, such as ``"openai.SyncAPIClient.request"``. A second call
    changes nothing.
    """
    global _live  # noqa: PLW0603  # one seam per process
    with _lock:
        _live = True
    hooks: dict[str, imports.Hook] = {}
    for provider in PROVIDERS:
        hooks[provider] = functools.partial(_say_if_too_old, provider)
        hooks[f"{provider}._base_client"] = functools.partial(_patch_clients, provider)
        hooks.update(dict.fromkeys((f"{provider}.resources.", f"{provider}.lib."), keywords.patch_module))
    imports.when_imported(hooks)
    return sorted(_patches)


def uninstrument() -> int:
    """
    Take the patches off, and return how many were taken off.

    A patch that somebody else has wrapped since stays, and does nothing: taking it off would take theirs off.
    """
    global _live  # noqa: PLW0603  # one seam per process
    with _lock:
        _live = False
        removed = 0
        for key, (owner, wrapper, original) in list(_patches.items()):
            if vars(owner).get("request") is wrapper:
                owner.request = original  # type: ignore[attr-defined]  # a class of an SDK
                del _patches[key]
                removed += 1
    imports.forget()
    keywords.restore()
    return removed


def is_instrumented() -> bool:
    """Return whether the SDKs are metered, now or as soon as they are imported."""
    return _live


def _say_if_too_old(provider: str, module: Any) -> None:
    """Say that an SDK from before its clients had a common base is not metered: nothing of it is patched."""
    if not hasattr(module, "_base_client"):
        release = getattr(module, "__version__", "of this version")
        log.warning("Paygent does not know %s %s: its calls are not metered; update it", provider, release)


def _patch_clients(provider: str, module: Any) -> None:
    with _lock:
        if not _live:
            return
        for name in _CLASSES:
            key = f"{provider}.{name}.request"
            owner = getattr(module, name, None)
            if owner is not None and key not in _patches:
                _patch(key, owner, provider, is_async=name.startswith("Async"))


def _patch(key: str, owner: type, provider: str, *, is_async: bool) -> None:
    original = vars(owner).get("request")
    if original is None or inspect.iscoroutinefunction(original) is not is_async:
        log.warning("Paygent does not know this version of %s: its calls are not metered", provider)
        return
    wrapper = (_async_request if is_async else _sync_request)(original, provider)
    owner.request = wrapper  # type: ignore[attr-defined]  # a class of an SDK
    _patches[key] = (owner, wrapper, original)
