"""
The settings of this app, in ``PAYGENT``.

::

    PAYGENT = {
        "STRIPE_WEBHOOK_SECRET": os.environ["STRIPE_WEBHOOK_SECRET"],  # or a list, while it is exchanged
        "STRIPE_PLANS": {"price_1Abc": "pro", "prod_Xyz": "team", "team_monthly": "team"},
        "STRIPE_USER": "billing.user_of",  # optional: (customer id, metadata) -> external_user_id | None
        "STRIPE_STATUSES": ["active", "trialing", "past_due"],  # optional: those that bind
    }
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

from paygent_django.database import project_name

__all__ = ["find_user", "plans", "project_name", "secrets", "statuses"]

STATUSES = ("active", "trialing", "past_due")
Finder = Callable[[str, Mapping[str, Any]], object]


def secrets() -> tuple[str, ...]:
    """The signing secrets of the endpoint; empty: nothing can be accepted."""
    given = _given("STRIPE_WEBHOOK_SECRET") or ()
    listed = (given,) if isinstance(given, str) else tuple(given)
    return tuple(secret.strip() for secret in listed if isinstance(secret, str) and secret.strip())


def plans() -> Mapping[str, str]:
    """Which plan a price, product or lookup key stands for."""
    return _given("STRIPE_PLANS") or {}


def find_user() -> Finder | None:
    """The project's own way from a customer to a user."""
    given = _given("STRIPE_USER")
    found: Finder | None = import_string(given) if isinstance(given, str) else given
    return found


def statuses() -> frozenset[str]:
    """The states of a subscription in which it binds; that of invoices alone is one."""
    return frozenset(_given("STRIPE_STATUSES") or STATUSES) | {""}


def _given(name: str) -> Any:
    return (getattr(settings, "PAYGENT", None) or {}).get(name)
