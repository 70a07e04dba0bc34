"""What a view can say of its own request: as a decorator, in every framework."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from paygent.client import Paygent
from paygent.core.errors import PaygentLimitExceeded
from paygent.core.models import GuardResult
from paygent.web.request import RequestSlot, current_slot
from paygent.web.usage import hand_over_plan, refusal_of

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def exempt(view: F) -> F:
    """Decorate a view so that the LLM calls of its requests pass unmetered and ungated."""
    return _before(view, mark_exempt)


def tag(**metadata: Any) -> Callable[[F], F]:
    """Decorate a view so that *metadata* is noted on each usage event of its requests."""
    return lambda view: _before(view, functools.partial(mark_tagged, metadata))


def require_budget(usd: float = 0.0, *, model: str | None = None) -> Callable[[F], F]:
    """
    Decorate a view so that a user whose plan is spent is refused before the view runs.

    A request without a user runs: its calls are judged by the option *anonymous*.

    Args:
        usd: What must be left of the billing period and of the session, in US dollars.
        model: Also ask for room on this model's own limit.

    Raises:
        PaygentLimitExceeded: When the view is called; the plugin answers with the 429.
    """
    check = functools.partial(demand_budget, usd, model)
    return lambda view: _before(view, check, waits=True)


async def beside_the_loop(slot: RequestSlot | None, step: Callable[[], T]) -> T:
    """Run *step*, which may wait for the ledger; a user who can only be awaited is found before."""
    if slot is not None and slot.identify is not None:
        await slot.identify()
    return await asyncio.to_thread(step)


def mark_exempt() -> None:
    """Let the calls of the running request pass; nothing happens outside of one."""
    slot = current_slot()
    if slot is not None:
        slot.exempt = True


def mark_tagged(metadata: dict[str, Any]) -> None:
    """Note *metadata* on the events of the running request; nothing happens outside of one."""
    slot = current_slot()
    if slot is not None:
        slot.tag(**metadata)


def demand_budget(usd: float = 0.0, model: str | None = None) -> GuardResult:
    """
    Ask what the gate would say to the running request's user; may wait for the ledger.

    Raises:
        PaygentLimitExceeded: It is closed, or less than *usd* is left.
    """
    slot, pg = current_slot(), Paygent.get_instance()
    if slot is None or pg is None or slot.exempt:
        return GuardResult()
    user_id = slot.user_id
    if user_id is None:
        if slot.resolve is not None:
            slot.resolve()
        return GuardResult()
    hand_over_plan(pg, user_id)
    result = pg.check_guard(user_id, model)
    if not slot.reports_only:
        refusal = refusal_of(pg, user_id, model, result, usd, own_session=slot.session_id is not None)
        if refusal is not None:
            error = PaygentLimitExceeded(refusal.guard_result, refusal)
            slot.tally.refused(error)
            raise error
    return result


def _before(view: F, step: Callable[[], Any], *, waits: bool = False) -> F:
    """Wrap *view*, plain, async or a class, so that *step* runs first; one that *waits*, off the loop."""
    if inspect.isclass(view):
        _wrap_dispatch(view, step, waits=waits)
        return view
    wrapper: Any
    if inspect.iscoroutinefunction(view):

        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            if waits:
                await beside_the_loop(current_slot(), step)
            else:
                step()
            return await view(*args, **kwargs)

    else:

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            step()
            return view(*args, **kwargs)

    return functools.wraps(view)(wrapper)  # type: ignore[return-value]  # wraps keeps the signature


def _wrap_dispatch(view: Any, step: Callable[[], Any], *, waits: bool) -> None:
    """Wrap the method that serves each request: of Starlette's endpoints, of Flask's and Quart's views."""
    for name in ("dispatch", "dispatch_request"):
        if hasattr(view, name):
            setattr(view, name, _before(getattr(view, name), step, waits=waits))
            return
    raise TypeError(f"{view.__name__} is no view that serves requests: decorate its methods")
