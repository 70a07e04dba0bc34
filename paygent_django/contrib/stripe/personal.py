"""What is kept of a user because of Stripe: exported with him, and removed when he is made anonymous."""

from __future__ import annotations

from typing import Any

from paygent_django.contrib.stripe.models import StripeCustomer, StripeEvent, StripeSubscription
from paygent_django.models import EndUser
from paygent_django.services._base import rows
from paygent_django.services.users import anonymising, exporting


def connect() -> None:
    """Hear of users who are exported or made anonymous."""
    anonymising.connect(_forget, dispatch_uid="paygent_stripe.forget")
    exporting.connect(_export, dispatch_uid="paygent_stripe.export")


def _forget(user: EndUser, **_: Any) -> None:
    """
    Remove his customers and their subscriptions.

    Events stay with their outcome, so that one that is delivered again changes nothing, but name nobody. What
    binds him stays as it was last set.
    """
    events = _events(user)
    events.filter(outcome="unresolved").update(outcome="ignored")
    events.update(customer_id="", subscription_id="", note="")
    rows(StripeCustomer).filter(user=user).delete()


def _export(user: EndUser, **_: Any) -> dict[str, Any]:
    customers = rows(StripeCustomer).filter(user=user).order_by("pk")
    subscriptions = rows(StripeSubscription).filter(customer__user=user).order_by("pk")
    return {
        "stripe": {
            "customers": list(customers.values_list("customer_id", flat=True)),
            "subscriptions": list(
                subscriptions.values("customer__customer_id", "subscription_id", "status", "items")
            ),
            "events": list(
                _events(user)
                .order_by("pk")
                .values("event_id", "kind", "created_s", "subscription_id", "outcome")
            ),
        }
    }


def _events(user: EndUser) -> Any:
    customers = list(rows(StripeCustomer).filter(user=user).values_list("customer_id", flat=True))
    return rows(StripeEvent).filter(project_id=user.project_id, customer_id__in=customers)
