"""
Which user a customer of Stripe's is.

In this order: the callable ``PAYGENT["STRIPE_USER"]``, the metadata ``paygent_user_id`` (our id) or
``external_user_id`` (the app's) of the subscription, invoice, checkout or customer, and, for a customer whom
nothing has named yet, the checkout's ``client_reference_id``: in a payment link anybody can write that.
"""

from __future__ import annotations

import logging
import uuid

from paygent_django import services
from paygent_django.contrib.stripe import conf
from paygent_django.contrib.stripe.binding import leave
from paygent_django.contrib.stripe.models import StripeCustomer
from paygent_django.contrib.stripe.payloads import Facts
from paygent_django.database import database_alias
from paygent_django.models import EndUser, Project
from paygent_django.services._base import rows

log = logging.getLogger("paygent")


def identify(customer: StripeCustomer, told: Facts, created_s: int) -> str:
    """
    Note who the customer is, if an event says so that is not older than the last one that did.

    Returns:
        What keeps him from being found; empty if nothing does.
    """
    if customer.user is not None and created_s < customer.told_s:
        return ""
    try:
        user = _named(customer.project, told)
        if user is None and customer.user is None and told.reference:
            user = services.ensure_user(customer.project, told.reference)
    except services.ServiceError as error:
        return str(error)[:500]
    if user is not None:
        if customer.user is not None and customer.user != user:
            leave(customer)
        customer.user, customer.told_s = user, created_s
        customer.save(using=database_alias(), update_fields=["user", "told_s"])
    return ""


def _named(project: Project, told: Facts) -> EndUser | None:
    find = conf.find_user()
    own = None if find is None else find(told.customer, told.metadata)
    if own is not None:
        return services.ensure_user(project, str(own))
    ours = told.metadata.get("paygent_user_id")
    if ours:
        return _by_our_id(project, str(ours))
    theirs = told.metadata.get("external_user_id")
    return services.ensure_user(project, str(theirs)) if theirs else None


def _by_our_id(project: Project, given: str) -> EndUser:
    try:
        user_uuid = uuid.UUID(given)
    except ValueError as error:
        raise services.ServiceError("paygent_user_id", "is no UUID", "unknown") from error
    named = rows(EndUser).filter(project=project, uuid=user_uuid, anonymised_us=None)
    found: EndUser | None = named.first()
    if found is None:
        raise services.ServiceError("paygent_user_id", "there is no such user", "unknown")
    return found
