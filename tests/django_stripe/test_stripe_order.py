"""Deliveries out of order, twice, and at the same time."""

import itertools
import threading

import pytest
from django.core.handlers.base import BaseHandler
from django.db import connections
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stripe_deliveries import DAY_S, NOW_S, PERIOD, START_S, Deliveries

from paygent_django.contrib.stripe.models import StripeEvent
from paygent_django.contrib.stripe.views import webhook
from paygent_django.models import Subscription

BEFORE = (START_S - 30 * DAY_S, START_S)
_customers = itertools.count()


def life(stripe, name):
    """A subscription from its first day to an upgrade in its second period, with its invoices."""
    who = {"customer": f"cus_{name}", "metadata": {"external_user_id": name}}
    sub = {"id": f"sub_{name}", **who}
    parent = {"subscription_details": {"subscription": f"sub_{name}", "metadata": who["metadata"]}}
    bill = {"customer": f"cus_{name}", "parent": parent}
    events = [
        stripe.subscription("created", period=BEFORE, status="incomplete", **sub),
        stripe.checkout(customer=f"cus_{name}", subscription=f"sub_{name}", client_reference_id=name),
        stripe.subscription(period=BEFORE, **sub),
        stripe.invoice(period=BEFORE, **bill),
        stripe.subscription(period=PERIOD, **sub),
        stripe.invoice(period=PERIOD, **bill),
        stripe.subscription(period=PERIOD, price="price_team", **sub),
    ]
    for event in events:
        for line in event["data"]["object"].get("lines", {}).get("data", ()):
            line["parent"]["subscription_item_details"]["subscription"] = f"sub_{name}"
    return events


@settings(
    max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
@given(order=st.permutations(range(7)), again=st.lists(st.integers(0, 6), max_size=4), ends=st.booleans())
def test_whatever_the_order_the_end_is_the_same(stripe, order, again, ends):
    """Every order of a subscription's events, some delivered twice, ends with its last plan and period."""
    name = f"user{next(_customers)}"
    events = life(stripe, name)
    if ends:
        events[3] = stripe.subscription(
            "deleted", period=PERIOD, id=f"sub_{name}", customer=f"cus_{name}", status="canceled"
        )
    for number in [*order, *again]:
        stripe.deliver(events[number])
    assert stripe.bound(name) == (None if ends else ("team", PERIOD))


def test_the_same_event_twice_changes_nothing(stripe):
    """A delivery that Stripe repeats leaves one subscription and one row of the event."""
    event = stripe.subscription("created")
    stripe.deliver(event, event, stripe.subscription(), event)
    alias = stripe.project._state.db
    assert Subscription.objects.using(alias).filter(user=stripe.user()).count() == 1
    assert StripeEvent.objects.using(alias).count() == 2


def test_an_older_event_never_undoes_a_newer_one(stripe):
    """An update that is delivered late is stale, and the user keeps what came after it."""
    old = stripe.subscription()
    stripe.deliver(stripe.subscription(price="price_team"))
    assert stripe.deliver(old) == "stale"
    assert stripe.bound() == ("team", PERIOD)


@pytest.mark.parametrize("late", ["created", "updated"])
def test_what_has_ended_stays_ended(stripe, late):
    """No event brings a cancelled subscription back, not even one of the same second."""
    stripe.deliver(stripe.subscription("created"))
    gone = stripe.subscription("deleted", status="canceled", at=NOW_S)
    stripe.deliver(gone, stripe.subscription(late, at=NOW_S), stripe.invoice(at=NOW_S + 5))
    assert stripe.bound() is None


def test_within_one_second_created_comes_first(stripe):
    """Times are whole seconds: what was created incomplete and paid in the same second is active."""
    paid = stripe.subscription("updated", at=NOW_S)
    assert stripe.deliver(paid) == "applied"
    assert stripe.deliver(stripe.subscription("created", status="incomplete", at=NOW_S)) == "stale"
    assert stripe.bound() == ("pro", PERIOD)


@pytest.mark.parametrize("database", ["sqlite", "postgres"], indirect=True)
def test_deliveries_at_the_same_moment(stripe, database):
    """Eight deliveries at once, among them the same one twice, are each taken in, and the newest counts."""
    events = [stripe.subscription() for _ in range(6)]
    events += [events[0], stripe.subscription(price="price_team")]
    outcomes = []

    def deliver(event):
        outcomes.append(Deliveries(stripe.project).deliver(event))
        connections[database].close()

    threads = [threading.Thread(target=deliver, args=(event,)) for event in events]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(outcomes) == 8
    assert set(outcomes) <= {"applied", "stale"}
    assert stripe.bound() == ("team", PERIOD)
    assert StripeEvent.objects.using(database).count() == 7


def test_a_delivery_is_no_part_of_the_requests_transaction(monkeypatch):
    """Under ATOMIC_REQUESTS the view opens its own transaction: one that has read first could not write."""
    monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", True)
    assert BaseHandler().make_view_atomic(webhook) is webhook


def test_a_fault_leaves_nothing_half_done(stripe, paygent_settings):
    """Where taking an event in fails, nothing of it is kept, and the next delivery is taken in whole."""
    event = stripe.subscription("created")
    paygent_settings["STRIPE_USER"] = lambda customer, metadata: 1 / 0
    with pytest.raises(ZeroDivisionError):
        stripe.deliver(event)
    assert StripeEvent.objects.using(stripe.project._state.db).count() == 0
    del paygent_settings["STRIPE_USER"]
    assert stripe.deliver(event) == "applied"
