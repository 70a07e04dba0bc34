"""
Read Stripe's events, in the shapes of its API versions before and since 2025-03-31.

Since then a billing period stands on each item of a subscription rather than on the subscription, the
subscription of an invoice under ``parent.subscription_details``, and the price of an invoice's line under
``pricing.price_details``.

Source: https://docs.stripe.com/changelog/basil, https://docs.stripe.com/api/events/types.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

SNAPSHOTS = {
    "customer.subscription.created": 0,
    "customer.subscription.updated": 1,
    "customer.subscription.paused": 1,
    "customer.subscription.resumed": 1,
    "customer.subscription.deleted": 2,
}
INVOICES = frozenset({"invoice.paid", "invoice.payment_succeeded"})
CHECKOUT = "checkout.session.completed"
CUSTOMERS = frozenset({"customer.created", "customer.updated"})
SECOND_US = 1_000_000


class MalformedEventError(ValueError):
    """What was sent is no event of Stripe's."""


@dataclass(frozen=True, slots=True)
class Item:
    """
    One price that a customer pays, and for which period: Unix seconds, 0 where it is not said.

    ``plan`` is the metadata ``paygent_plan`` of the price.
    """

    price: str = ""
    product: str = ""
    lookup_key: str = ""
    plan: str = ""
    start_s: int = 0
    end_s: int = 0

    def as_json(self) -> dict[str, Any]:
        """For a column of JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Facts:
    """
    What an event says of a subscription.

    ``metadata`` names the user, as set by the app's server, ``reference`` does where the app gave one to a
    checkout. ``rank`` is ``None`` for what is no snapshot of a subscription.
    """

    customer: str = ""
    subscription: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    reference: str = ""
    rank: int | None = None
    status: str = ""
    items: tuple[Item, ...] = ()
    plan: str = ""
    ends_s: int | None = None


@dataclass(frozen=True, slots=True)
class StripeMessage:
    """An event: its envelope, and the object it is about."""

    id: str
    kind: str
    created_s: int
    about: Mapping[str, Any]


def message(body: object) -> StripeMessage:
    """
    The envelope of an event.

    Raises:
        MalformedEventError: Something that every event has is missing.
    """
    event = _mapping(body)
    about = _mapping(event.get("data")).get("object")
    created_s = event.get("created")
    if not isinstance(about, Mapping) or not isinstance(created_s, int) or isinstance(created_s, bool):
        raise MalformedEventError("this is no event of Stripe's")
    id_, kind = _text(event.get("id")), _text(event.get("type"))
    if not id_ or not kind:
        raise MalformedEventError("an event of Stripe's has an id and a type")
    return StripeMessage(id_, kind, created_s, about)


def facts(told: StripeMessage) -> Facts | None:
    """What *told* says of a subscription or of who a customer is; ``None``: nothing."""
    if told.kind in SNAPSHOTS:
        return _of_subscription(told.about, SNAPSHOTS[told.kind])
    if told.kind in INVOICES:
        invoice = _of_invoice(told.about)
        return invoice if invoice.subscription else None
    if told.kind == CHECKOUT and told.about.get("mode") == "subscription":
        return _of_checkout(told.about)
    if told.kind in CUSTOMERS:
        return Facts(customer=_id(told.about), metadata=_mapping(told.about.get("metadata")))
    return None


def _of_subscription(about: Mapping[str, Any], rank: int) -> Facts:
    whole = about.get("current_period_start"), about.get("current_period_end")
    metadata = _mapping(about.get("metadata"))
    items = tuple(_item(row, whole) for row in _rows(about.get("items")))
    ends_s = about.get("cancel_at")
    if ends_s is None and about.get("cancel_at_period_end"):
        ends_s = max((item.end_s for item in items), default=0) or None
    return Facts(
        customer=_id(about.get("customer")),
        subscription=_id(about),
        metadata=metadata,
        rank=rank,
        status=_text(about.get("status")),
        items=items,
        plan=_text(metadata.get("paygent_plan")),
        ends_s=ends_s if isinstance(ends_s, int) else None,
    )


def _item(row: Mapping[str, Any], whole: tuple[object, object]) -> Item:
    start, end = row.get("current_period_start", whole[0]), row.get("current_period_end", whole[1])
    return _priced(row.get("price") or row.get("plan"), start, end)


def _of_invoice(about: Mapping[str, Any]) -> Facts:
    parent = _mapping(_mapping(about.get("parent")).get("subscription_details"))
    details = parent or _mapping(about.get("subscription_details"))
    subscription = _id(parent.get("subscription") or about.get("subscription"))
    lines = [line for line in _rows(about.get("lines")) if _is_renewal(line, subscription)]
    metadata = {**_mapping(about.get("metadata")), **_mapping(details.get("metadata"))}
    return Facts(
        customer=_id(about.get("customer")),
        subscription=subscription,
        metadata=metadata,
        items=tuple(_line(line) for line in lines),
        plan=_text(metadata.get("paygent_plan")),
    )


def _is_renewal(line: Mapping[str, Any], subscription: str) -> bool:
    """Whether a line is for a whole period: what a change in mid-period costs says nothing about periods."""
    parent = _mapping(_mapping(line.get("parent")).get("subscription_item_details"))
    if not parent and line.get("type") != "subscription":
        return False
    known = _id(parent.get("subscription") or line.get("subscription"))
    return not (parent.get("proration") or line.get("proration")) and known in ("", subscription)


def _line(line: Mapping[str, Any]) -> Item:
    details = _mapping(_mapping(line.get("pricing")).get("price_details"))
    period = _mapping(line.get("period"))
    price = details.get("price") or line.get("price") or line.get("plan")
    return _priced(price, period.get("start"), period.get("end"), product=_id(details.get("product")))


def _of_checkout(about: Mapping[str, Any]) -> Facts:
    return Facts(
        customer=_id(about.get("customer")),
        subscription=_id(about.get("subscription")),
        metadata=_mapping(about.get("metadata")),
        reference=_text(about.get("client_reference_id")),
    )


def _priced(price: object, start: object, end: object, product: str = "") -> Item:
    """An item of a price, which may be its id alone; its product may be expanded or an id too."""
    known = _mapping(price)
    of_product = known.get("product")
    hints = (known.get("metadata"), _mapping(of_product).get("metadata"))
    plan = next((text for hint in hints if (text := _text(_mapping(hint).get("paygent_plan")))), "")
    spans = isinstance(start, int) and isinstance(end, int) and start < end
    return Item(
        price=_id(price),
        product=_id(of_product) or product,
        lookup_key=_text(known.get("lookup_key")),
        plan=plan,
        start_s=start if spans else 0,  # type: ignore[arg-type]  # an int, as `spans` says
        end_s=end if spans else 0,  # type: ignore[arg-type]
    )


def _rows(given: object) -> Iterator[Mapping[str, Any]]:
    data = _mapping(given).get("data")
    return (row for row in data if isinstance(row, Mapping)) if isinstance(data, list) else iter(())


def _mapping(given: object) -> Mapping[str, Any]:
    return given if isinstance(given, Mapping) else {}


def _text(given: object) -> str:
    return given if isinstance(given, str) else ""


def _id(given: object) -> str:
    """The id of an object, which may be expanded."""
    return _text(given.get("id")) if isinstance(given, Mapping) else _text(given)
