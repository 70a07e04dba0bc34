"""
Set what binds a user, from all that is known of his subscriptions with Stripe.

Of several that bind, the plan of the highest rank counts. The account is touched only where Stripe's terms
have changed since they were last set: what support has changed by hand stays until then.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from paygent.core.windows import from_us
from paygent_django import services
from paygent_django.contrib.stripe import conf
from paygent_django.contrib.stripe.models import StripeCustomer, StripeSubscription
from paygent_django.contrib.stripe.payloads import SECOND_US, Item
from paygent_django.models import EndUser, Plan
from paygent_django.models.moments import now_us
from paygent_django.services._base import rows

BY = "stripe"


class Terms(NamedTuple):
    """What one subscription makes of its user's account; times in Unix seconds, 0 or ``None``: not said."""

    row: StripeSubscription
    plan: Plan
    start_s: int
    end_s: int

    @property
    def rank(self) -> tuple[int, int, int]:
        """The higher one counts."""
        version = self.plan.current
        return (version.rank if version else 0, self.start_s, self.row.pk)

    @property
    def content(self) -> list[Any]:
        """For comparison with what was set last."""
        return [self.plan.pk, self.start_s, self.end_s, self.row.subscription_id, self.row.ends_s]


def apply(user: EndUser) -> str:
    """
    Bind *user* as Stripe says now, within the caller's transaction.

    Returns:
        Why a subscription that is paid for binds nobody; empty if there is none such.
    """
    rows(EndUser).select_for_update().get(pk=user.pk)  # one after the other, for several customers too
    held = list(rows(StripeCustomer).filter(user=user).order_by("pk"))
    known = rows(StripeSubscription).filter(customer__user=user).select_related("customer").order_by("pk")
    offers: list[Terms] = []
    problems: list[str] = []
    for row in [row for row in known if row.status in conf.statuses()]:
        terms = _terms(user, row)
        if terms is None:
            problems.append(_unknown(row))
        else:
            offers.append(terms)
        _note(row, "" if terms else problems[-1])
    if offers:
        _bind(user, max(offers, key=lambda terms: terms.rank), held)
    elif not problems:
        _release(user, held)
    return problems[0] if problems else ""


def leave(customer: StripeCustomer) -> None:
    """End what *customer* has brought his user, who is somebody else from now on."""
    _release(customer.user, [customer])
    customer.refresh_from_db(fields=["bound"])


def _terms(user: EndUser, row: StripeSubscription) -> Terms | None:
    """The plan of the highest rank that one of the prices stands for, with the period of that price."""
    found = []
    for item in (Item(**given) for given in row.items):
        plan = next((plan for name in _names(item, row) if (plan := _plan(user, name))), None)
        if plan is not None:
            found.append(Terms(row, plan, item.start_s, item.end_s))
    return max(found, key=lambda terms: terms.rank, default=None)


def _names(item: Item, row: StripeSubscription) -> Iterator[str]:
    """What may name the plan of a price, the project's settings first."""
    plans = conf.plans()
    yield from (plans[key] for key in (item.price, item.lookup_key, item.product) if key and key in plans)
    yield from (name for name in (row.plan, item.plan, item.lookup_key) if name)


def _plan(user: EndUser, name: str) -> Plan | None:
    """A plan that has been configured: one that has not would be without limits."""
    plan = services.find_plan(user.project, name)
    return plan if plan is not None and plan.current is not None else None


def _unknown(row: StripeSubscription) -> str:
    prices = ", ".join(item["price"] or item["product"] or "?" for item in row.items) or "none"
    return f"no plan is known for the prices of {row.subscription_id}: {prices}"[:500]


def _note(row: StripeSubscription, note: str) -> None:
    if row.note != note:
        rows(StripeSubscription).filter(pk=row.pk).update(note=note)


def _bind(user: EndUser, terms: Terms, held: list[StripeCustomer]) -> None:
    if terms.content in [customer.bound for customer in held]:
        return
    spans = bool(terms.end_s)
    services.subscribe(
        user,
        terms.plan,
        period_start=from_us(terms.start_s * SECOND_US) if spans else None,
        period_end=from_us(terms.end_s * SECOND_US) if spans else None,
        reference=terms.row.subscription_id,
        by=BY,
    )
    ends_us = (terms.row.ends_s or 0) * SECOND_US
    if ends_us > now_us() + SECOND_US and ends_us > terms.start_s * SECOND_US:
        services.cancel(user, from_us(ends_us))
    _remember(held, {terms.row.customer.pk: terms.content})


def _release(user: EndUser, held: list[StripeCustomer]) -> None:
    """End what was set last, unless somebody has since put the user on another plan."""
    bound = next((customer.bound for customer in held if customer.bound), None)
    if bound is None:
        return
    running = services.running(user)
    if running is not None and running.plan_id == bound[0]:
        services.cancel(user)
    _remember(held, {})


def _remember(held: list[StripeCustomer], bound: dict[int, list[Any]]) -> None:
    for customer in held:
        rows(StripeCustomer).filter(pk=customer.pk).update(bound=bound.get(customer.pk))
