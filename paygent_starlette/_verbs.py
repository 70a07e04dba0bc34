"""What an endpoint says of its own request: a decorator, and under FastAPI a dependency as well."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from paygent.core.models import GuardResult
from paygent.web import verbs
from paygent.web.request import current_slot
from paygent_starlette._users import id_of

_NO_PARAMETERS = inspect.Signature()


class Verb:
    """
    Something said of a request.

    ``@verb`` decorates an endpoint, plain, async or a class, below the route's own decorator: above it, no
    framework would see it.
    ``Depends(verb)`` says the same for one endpoint, a router or a whole FastAPI app.
    """

    __signature__ = _NO_PARAMETERS  # what FastAPI looks at: the endpoint to decorate is no query parameter

    def __init__(self, decorate: Callable[[Any], Any], step: Callable[[], object]) -> None:
        self._decorate = decorate
        self._step = step

    def __call__(self, endpoint: Any = None) -> Any:
        """Decorate *endpoint*; without one, say it of the request that is being served."""
        if endpoint is not None:
            return self._decorate(endpoint)
        self._step()
        return None


exempt = Verb(verbs.exempt, verbs.mark_exempt)


def tag(**metadata: Any) -> Verb:
    """Note *metadata* on each usage event of the request."""
    return Verb(verbs.tag(**metadata), functools.partial(verbs.mark_tagged, metadata))


def require_budget(usd: float = 0.0, *, model: str | None = None) -> Verb:
    """
    Refuse a user whose plan is spent, or who has less than *usd* left, before the endpoint runs.

    See :func:`paygent.web.verbs.require_budget`.
    """
    check = functools.partial(verbs.demand_budget, usd, model)
    return Verb(verbs.require_budget(usd, model=model), check)


def check_limits(model: str | None = None, *, usd: float = 0.0) -> Callable[[], Awaitable[GuardResult]]:
    """
    Make a dependency that refuses as :func:`require_budget` does, and else returns the gate's answer.

    Declare it after the dependency that signs the user in: ``guard: GuardResult =
    Depends(check_limits(model="gpt-4o"))``.
    """

    async def check() -> GuardResult:
        return await verbs.beside_the_loop(current_slot(), lambda: verbs.demand_budget(usd, model))

    return check


def paygent_user(
    get_current_user: Callable[..., Any], *, user_id: Callable[[Any], object] = id_of
) -> Callable[..., Awaitable[Any]]:
    """
    Make a FastAPI dependency of the app's own *get_current_user*: the user that it returns pays.

    Args:
        get_current_user: Returns the user, or raises as it does anyway.
        user_id: The id of such a user; by default the user itself where it is text or a number, else the
            first of ``identity``, ``id``, ``pk``, ``user_id``, ``sub`` and ``username`` that it has.

    Returns:
        For ``user: User = Depends(paygent_user(get_current_user))``; the value is the user.
    """
    from fastapi import Depends

    async def current(user: Any) -> Any:
        slot = current_slot()
        if slot is not None:
            slot.user_id = user_id(user)
        return user

    found = inspect.Parameter("user", inspect.Parameter.KEYWORD_ONLY, default=Depends(get_current_user))
    current.__signature__ = inspect.Signature([found])  # type: ignore[attr-defined]  # read by FastAPI
    return current
