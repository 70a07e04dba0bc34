"""
Take in an event: remember what it says of a subscription and of who the customer is, then apply it.

Each event is one transaction, which locks users, then the event, then the customer. What is known of a
customer is kept whether or not his user and his prices are known yet, so that the event that names them, or a
corrected setting, finds everything in place.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict
from functools import partial
from typing import TypeVar

from paygent_django import services
from paygent_django.contrib.stripe import conf, customers
from paygent_django.contrib.stripe.binding import apply
from paygent_django.contrib.stripe.customers import Naming
from paygent_django.contrib.stripe.merging import Known, merged
from paygent_django.contrib.stripe.models import StripeCustomer, StripeEvent, StripeSubscription
from paygent_django.contrib.stripe.payloads import Facts, Item, StripeMessage, facts
from paygent_django.database import database_alias
from paygent_django.models import EndUser, Project
from paygent_django.services._base import rows, writing

log = logging.getLogger("paygent")
T = TypeVar("T")
_TRIES = 4
SETTLED = frozenset({"applied", "stale", "ignored"})


class OvertakenError(Exception):
    """A customer has become somebody else's between two looks; the transaction is begun anew."""


def take(told: StripeMessage) -> StripeEvent:
    """
    Take in one event; one that is delivered again changes nothing.

    Returns:
        Its row, with what became of it.
    """
    project, known = services.project(conf.project_name()), facts(told)
    named = Naming() if known is None else customers.naming(known)
    record = _repeated(partial(_taken, project, told, known, named))
    level = logging.WARNING if record.outcome == "unresolved" else logging.INFO
    log.log(level, "Stripe: %s %s: %s %s", record.kind, record.event_id, record.outcome, record.note)
    return record


def retry(project: Project) -> Iterator[str]:
    """
    Apply again what could not be applied, now that a price or a user may be known.

    Yields what became of each customer: ``applied``, ``ignored`` or ``unresolved``.
    """
    waiting = rows(StripeEvent).filter(project=project, outcome="unresolved").exclude(customer_id="")
    for customer_id in sorted(set(waiting.values_list("customer_id", flat=True))):
        yield _repeated(partial(_applied_again, project, customer_id))


def _repeated(work: Callable[[], T]) -> T:
    for _ in range(_TRIES - 1):
        with contextlib.suppress(OvertakenError):
            return work()
    return work()


def _taken(project: Project, told: StripeMessage, known: Facts | None, named: Naming) -> StripeEvent:
    with writing(project.pk):
        users = set() if known is None else customers.locked_users(project, known.customer[:255], named)
        record = _recorded(project, told)
        if record.outcome not in SETTLED:
            if known is None:
                record.outcome, record.note = "ignored", "says nothing about plans"
            else:
                _take_facts(record, known, named, users)
            record.save(using=database_alias())
    return record


def _applied_again(project: Project, customer_id: str) -> str:
    with writing(project.pk):
        users = customers.locked_users(project, customer_id, Naming())
        waiting = rows(StripeEvent).filter(project=project, outcome="unresolved", customer_id=customer_id)
        list(waiting.select_for_update().order_by("pk").values_list("pk"))
        outcome, note = _applied(_locked(project, customer_id, users))
        waiting.update(outcome=outcome, note=note)
    return outcome


def _recorded(project: Project, told: StripeMessage) -> StripeEvent:
    """The event's row, locked."""
    row = StripeEvent(project=project, event_id=told.id[:255], kind=told.kind[:100], created_s=told.created_s)
    rows(StripeEvent).bulk_create([row], ignore_conflicts=True)
    found: StripeEvent = rows(StripeEvent).select_for_update().get(project=project, event_id=told.id[:255])
    return found


def _take_facts(record: StripeEvent, known: Facts, named: Naming, users: Collection[int]) -> None:
    record.customer_id, record.subscription_id = known.customer[:255], known.subscription[:255]
    if not known.customer:
        record.note = "names no customer"
        return
    customer = _locked(record.project, known.customer, users)
    before: EndUser | None = customer.user
    problem = customers.identify(customer, named, record.created_s)
    is_news = _merge(customer, known, record.created_s)
    if before is not None and before != customer.user:
        apply(before)
    record.outcome, record.note = _applied(customer)  # to whom he is known to be, also where he is misnamed
    if problem:
        record.outcome, record.note = "unresolved", problem
    if record.outcome == "applied" and not is_news:
        record.outcome = "stale"


def _locked(project: Project, customer_id: str, users: Collection[int]) -> StripeCustomer:
    """The customer's row, locked; whose he is must be among the *users* who were locked before."""
    row = StripeCustomer(project=project, customer_id=customer_id[:255])
    rows(StripeCustomer).bulk_create([row], ignore_conflicts=True)
    found: StripeCustomer = (
        rows(StripeCustomer).select_for_update().get(project=project, customer_id=customer_id[:255])
    )
    if found.user_id is not None and found.user_id not in users:
        raise OvertakenError(customer_id)
    return found


def _merge(customer: StripeCustomer, told: Facts, created_s: int) -> bool:
    """Keep what is newer; whether the event said anything that is."""
    if not told.subscription or (told.rank is None and not told.items):
        return True
    row, _ = rows(StripeSubscription).get_or_create(
        customer=customer, subscription_id=told.subscription[:255]
    )
    items = tuple(Item(**item) for item in row.items)
    known = Known(row.status, items, row.plan, row.ends_s, tuple(row.order), row.invoice_s)
    after = merged(known, told, created_s)
    if after is None:
        return False
    row.status, row.plan, row.ends_s = after.status[:32], after.plan[:500], after.ends_s
    row.items = [asdict(item) for item in after.items]
    row.order, row.invoice_s = list(after.order), after.invoice_s
    row.save(using=database_alias())
    return True


def _applied(customer: StripeCustomer) -> tuple[str, str]:
    """Set what binds the customer's user; returns the outcome and a note."""
    user: EndUser | None = customer.user
    if user is None:
        if not rows(StripeSubscription).filter(customer=customer).exists():
            return "ignored", "names neither a user nor a plan"
        return "unresolved", "whose customer this is, is not known"
    problem = apply(user)
    return ("unresolved", problem) if problem else ("applied", "")
