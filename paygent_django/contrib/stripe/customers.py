"""
Which user a customer of Stripe's is.

In this order: the callable ``PAYGENT["STRIPE_USER"]``, the metadata ``paygent_user_id`` (our id) or
``external_user_id`` (the app's) of the subscription, invoice, checkout or customer, and, for a customer whom
nothing has named yet, the checkout's ``client_reference_id``: in a payment link anybody can write that.
"""

from __future__ import annotations

import logging
import uuid
from typing import NamedTuple

from django.db.models import Q

from paygent_django import services
from paygent_django.contrib.stripe import conf
from paygent_django.contrib.stripe.binding import leave
from paygent_django.contrib.stripe.models import StripeCustomer
from paygent_django.contrib.stripe.payloads import Facts
from paygent_django.database import database_alias
from paygent_django.models import EndUser, Project
from paygent_django.services._base import rows

log = logging.getLogger("paygent")


class Naming(NamedTuple):
    """
    Whom an event names: by our id, by the app's, or, for a customer whom nothing has named, by a reference.

    ``problem`` is what keeps him from being found.
    """

    our_id: uuid.UUID | None = None
    own_id: str | None = None
    reference: str | None = None
    problem: str = ""


def naming(told: Facts) -> Naming:
    """Whom an event names; the project's own way may take its time, so nothing is locked meanwhile."""
    find = conf.find_user()
    own = None if find is None else find(told.customer, told.metadata)
    if own is not None:
        return Naming(own_id=str(own))
    ours = told.metadata.get("paygent_user_id")
    if ours:
        try:
            return Naming(our_id=uuid.UUID(str(ours)))
        except ValueError:
            return Naming(problem="paygent_user_id: is no UUID")
    theirs = told.metadata.get("external_user_id")
    return Naming(own_id=str(theirs)) if theirs else Naming(reference=told.reference or None)


def locked_users(project: Project, customer_id: str, named: Naming) -> set[int]:
    """
    Lock the users whom an event may touch, who are there, in the order of their keys, as the ledger does.

    Users come before events and events before customers, here as where a user is made anonymous: so nobody
    waits crosswise.
    """
    held = rows(StripeCustomer).filter(project=project, customer_id=customer_id, user__isnull=False)
    chosen = Q(pk__in=list(held.values_list("user_id", flat=True)))
    if named.our_id is not None:
        chosen |= Q(uuid=named.our_id)
    if name := named.own_id or named.reference:
        chosen |= Q(external_user_id=name)
    found = rows(EndUser).filter(chosen, project=project).select_for_update().order_by("pk")
    return {user.pk for user in found}


def identify(customer: StripeCustomer, named: Naming, created_s: int) -> str:
    """
    Note who the customer is, if an event says so that is not older than the last one that did.

    Returns:
        What keeps him from being found; empty if nothing does.
    """
    if customer.user is not None and created_s < customer.told_s:
        return ""
    if named.problem:
        return named.problem
    try:
        user = _named(customer, named)
    except services.ServiceError as error:
        return str(error)[:500]
    if user is not None:
        if customer.user is not None and customer.user != user:
            leave(customer)
        customer.user, customer.told_s = user, created_s
        customer.save(using=database_alias(), update_fields=["user", "told_s"])
    return ""


def _named(customer: StripeCustomer, named: Naming) -> EndUser | None:
    if named.our_id is not None:
        return _by_our_id(customer.project, named.our_id)
    name = named.own_id
    if name is None and customer.user is None:
        name = named.reference
    return None if name is None else services.ensure_user(customer.project, name)


def _by_our_id(project: Project, user_uuid: uuid.UUID) -> EndUser:
    named = rows(EndUser).filter(project=project, uuid=user_uuid, anonymised_us=None)
    found: EndUser | None = named.first()
    if found is None:
        raise services.ServiceError("paygent_user_id", "there is no such user", "unknown")
    return found
