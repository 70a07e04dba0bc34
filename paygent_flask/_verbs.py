"""What a view says of its own requests; on a blueprint, of the requests of all its views."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from flask import Blueprint

from paygent.web import verbs

T = TypeVar("T", bound=Callable[..., Any] | Blueprint)


def exempt(target: T) -> T:
    """Let the LLM calls of a view's requests pass unmetered and ungated; of all views of a blueprint."""
    return _applied(target, verbs.exempt, verbs.mark_exempt)


def tag(**metadata: Any) -> Callable[[T], T]:
    """Note *metadata* on each usage event of a view's requests; of all views of a blueprint."""
    mark = functools.partial(verbs.mark_tagged, metadata)
    return lambda target: _applied(target, verbs.tag(**metadata), mark)


def require_budget(usd: float = 0.0, *, model: str | None = None) -> Callable[[T], T]:
    """
    Refuse a user whose plan is spent before a view runs; before each view of a blueprint.

    A request without a user runs: its calls are judged by the option *anonymous*.

    Args:
        usd: What must be left of the billing period and of the session, in US dollars.
        model: Also ask for room on this model's own limit.

    Raises:
        PaygentLimitExceeded: When the view is called; the app answers with the 429.
    """
    demand = functools.partial(verbs.demand_budget, usd, model)
    return lambda target: _applied(target, verbs.require_budget(usd, model=model), demand)


def _applied(target: T, decorate: Callable[[Any], Any], step: Callable[[], Any]) -> T:
    if not isinstance(target, Blueprint):
        return decorate(target)  # type: ignore[no-any-return]  # it keeps the signature

    def before_each() -> None:  # what it returned would be the answer
        step()

    target.before_request(before_each)
    return target
