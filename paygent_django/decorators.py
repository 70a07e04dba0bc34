"""
What a view can say of its own request; the verbs of all web plugins.

For views of any kind: functions and classes, sync and async, those of Django REST framework and django-ninja.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from asgiref.sync import iscoroutinefunction, sync_to_async

from paygent.web.verbs import demand_budget, mark_exempt, mark_tagged

V = TypeVar("V", bound=Callable[..., Any])
Step = Callable[[], Any]

__all__ = ["exempt", "require_budget", "tag"]


def exempt(view: V) -> V:
    """Decorate a view so that the LLM calls of its requests pass unmetered and ungated."""
    return _before(view, mark_exempt)


def tag(**metadata: Any) -> Callable[[V], V]:
    """Decorate a view so that *metadata* is noted on each usage event of its requests."""
    return lambda view: _before(view, functools.partial(mark_tagged, metadata))


def require_budget(usd: float = 0.0, *, model: str | None = None) -> Callable[[V], V]:
    """
    Decorate a view so that a user whose plan is spent is refused before the view runs.

    A request without a user runs: its calls are judged by the setting ``ANONYMOUS``.

    Args:
        usd: What must be left of the billing period and of the session, in US dollars.
        model: Also ask for room on this model's own limit.

    Raises:
        PaygentLimitExceeded: When the view is called; the middleware answers with the 429.
    """
    return lambda view: _before(view, functools.partial(demand_budget, usd, model), waits=True)


def _before(view: V, step: Step, *, waits: bool = False) -> V:
    """Wrap *view* so that *step* runs first; one that *waits* does so off the event loop."""
    if inspect.isclass(view):
        _wrap_dispatch(view, step, waits=waits)
        return view
    return _wrapped(view, step, is_async=iscoroutinefunction(view), waits=waits)


def _wrap_dispatch(view: Any, step: Step, *, waits: bool) -> None:
    if hasattr(view, "initial") and waits:
        view.initial = _after(view.initial, step)  # Django REST framework: now the user is known
        return
    is_async = getattr(view, "view_is_async", False)
    view.dispatch = _wrapped(view.dispatch, step, is_async=is_async, waits=waits)


def _after(method: V, step: Step) -> V:
    def wrapper(*args: Any, **kwargs: Any) -> None:
        method(*args, **kwargs)
        step()

    return functools.wraps(method)(wrapper)  # type: ignore[return-value]  # wraps keeps the signature


def _wrapped(view: V, step: Step, *, is_async: bool, waits: bool) -> V:
    wrapper: Any
    if is_async:
        step_async = sync_to_async(step) if waits else None

        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            if step_async is None:
                step()
            else:
                await step_async()
            return await view(*args, **kwargs)

    else:

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            step()
            return view(*args, **kwargs)

    return functools.wraps(view)(wrapper)  # type: ignore[return-value]  # wraps keeps the signature
