"""
Put what an event says into what is known of a subscription, in whatever order events arrive.

Stripe promises no order, and its times are whole seconds. A snapshot of a subscription replaces an older one;
within one second ``created`` comes before ``updated`` before ``deleted``, and an earlier period before a
later one. A subscription that has ended stays ended. A paid invoice can only add a later period, unless
there has been no snapshot: then invoices alone say what is paid for.

Source: https://docs.stripe.com/webhooks#event-ordering.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from paygent_django.contrib.stripe.payloads import Facts, Item

OVER = frozenset({"canceled", "incomplete_expired"})  # no way leads out of these

Order = tuple[int, ...]  # (over, seconds, rank, end of the period)


@dataclass(frozen=True, slots=True)
class Known:
    """
    A subscription as far as it is known; ``order`` is empty as long as there was no snapshot.

    ``ends_s`` is when it is to be cancelled, ``plan`` the plan its own metadata names.
    """

    status: str = ""
    items: tuple[Item, ...] = ()
    plan: str = ""
    ends_s: int | None = None
    order: Order = ()
    invoice_s: int = 0


def merged(known: Known, told: Facts, created_s: int) -> Known | None:
    """What is known after an event of *created_s*; ``None`` if it says nothing that is newer."""
    if told.rank is None:
        return _with_invoice(known, told, created_s)
    until_s = max((item.end_s for item in told.items), default=0)
    order = (int(told.status in OVER), created_s, told.rank, until_s)
    if order < known.order:
        return None
    items = told.items
    if created_s < known.invoice_s:
        items = tuple(_lengthened(item, known.items) for item in items)
    return Known(told.status, items, told.plan, told.ends_s, order, known.invoice_s)


def _with_invoice(known: Known, told: Facts, created_s: int) -> Known | None:
    if known.order and known.order[0]:
        return None
    newest_s = max(known.invoice_s, created_s)
    if known.order:
        items = tuple(_lengthened(item, told.items) for item in known.items)
        return None if items == known.items else replace(known, items=items, invoice_s=newest_s)
    if created_s < known.invoice_s or not told.items:
        return None
    return replace(known, items=told.items, plan=told.plan, invoice_s=newest_s)


def _lengthened(item: Item, others: tuple[Item, ...]) -> Item:
    """The item in the latest period that is known for its price."""
    same = [other for other in others if other.price == item.price and other.end_s > item.end_s]
    latest = max(same, key=lambda other: other.end_s, default=item)
    return replace(item, start_s=latest.start_s, end_s=latest.end_s)
