"""Events of Stripe's that arrive while somebody else is at the same user, on connections of PostgreSQL."""

import json
import threading

import pytest
from django.db import connections
from django.test import Client
from stripe_deliveries import NEXT

from paygent_django import services
from paygent_django.contrib.stripe import customers
from paygent_django.contrib.stripe.models import StripeCustomer, StripeEvent
from paygent_django.services import users

WAIT_S = 30.0
pytestmark = pytest.mark.parametrize("database", ["postgres"], indirect=True)


def beside(act, results):
    """Do it on a thread, which has connections of its own."""

    def run():
        try:
            results.append(act())
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("is_known", [False, True], ids=["new", "delivered again"])
def test_an_event_and_an_end_do_not_cross(stripe, database, postgres_server, monkeypatch, is_known):
    """A user is made anonymous while an event about him arrives: one waits for the other, both are done."""
    stripe.deliver(stripe.subscription("created", metadata={"external_user_id": "ada"}))
    event = stripe.subscription(metadata={"external_user_id": "ada"}, price="price_x", period=NEXT)
    if is_known:  # its price is unknown: it is kept, and tried again when it comes again
        stripe.deliver(event)
    forget, answers, threads = users.forget, [], []

    def crossed(*given):
        stripe.client = Client(raise_request_exception=False)
        threads.append(beside(lambda: stripe.post(json.dumps(event)).status_code, answers))
        postgres_server.until_somebody_waits(connections[database].settings_dict["NAME"])
        forget(*given)

    monkeypatch.setattr(users, "forget", crossed)
    ada = stripe.user()
    services.anonymise(ada)
    threads[0].join(WAIT_S)
    assert answers == [200]
    assert not StripeCustomer.objects.using(database).filter(user=ada).exists()


def test_events_of_two_customers_of_one_user_do_not_cross(stripe, database, postgres_server, monkeypatch):
    """Two customers are one user: events about both at once are taken in one after the other."""
    for number in (1, 2):
        stripe.deliver(
            stripe.subscription(
                "created", customer=f"cus_{number}", id=f"sub_{number}", metadata={"external_user_id": "ada"}
            )
        )
    named, answers, threads = customers.identify, [], []
    first, second = (
        stripe.subscription(
            customer=f"cus_{number}",
            id=f"sub_{number}",
            price="price_team",
            period=NEXT,
            metadata={"external_user_id": "ada"},
        )
        for number in (1, 2)
    )

    def crossed(*given):
        if not threads:
            other = Client(raise_request_exception=False)
            stripe.client, mine = other, stripe.client
            threads.append(beside(lambda: stripe.post(json.dumps(second)).status_code, answers))
            postgres_server.until_somebody_waits(connections[database].settings_dict["NAME"])
            stripe.client = mine
        return named(*given)

    monkeypatch.setattr(customers, "identify", crossed)
    stripe.deliver(first)
    threads[0].join(WAIT_S)
    assert answers == [200]
    assert set(StripeEvent.objects.using(database).values_list("outcome", flat=True)) == {"applied"}
