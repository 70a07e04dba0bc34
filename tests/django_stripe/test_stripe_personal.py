"""What is kept of a user because of Stripe, when he is exported or made anonymous."""

import json

from paygent_django import services
from paygent_django.contrib.stripe.models import StripeCustomer, StripeEvent, StripeSubscription


def test_an_export_holds_what_stripe_said(stripe):
    """Customers, subscriptions and events of that user are in his export."""
    stripe.deliver(stripe.subscription("created"))
    said = services.export_user(stripe.user())["stripe"]
    assert said["customers"] == [StripeCustomer.objects.using(stripe.project._state.db).get().customer_id]
    assert (len(said["subscriptions"]), len(said["events"])) == (1, 1)
    assert json.dumps(said)


def test_an_anonymous_user_is_linked_to_no_customer(stripe):
    """His customers and subscriptions go, events name nobody, and one that comes again changes nothing."""
    event = stripe.subscription("created")
    stripe.deliver(event)
    user = stripe.user()
    services.anonymise(user)
    alias = stripe.project._state.db
    assert not StripeCustomer.objects.using(alias).exists()
    assert not StripeSubscription.objects.using(alias).exists()
    row = StripeEvent.objects.using(alias).get()
    assert (row.customer_id, row.subscription_id, row.note) == ("", "", "")
    stripe.deliver(event)
    assert stripe.user() is None
    assert not StripeCustomer.objects.using(alias).exists()


def test_our_id_of_an_anonymous_user_links_nobody(stripe):
    """An event that names him by our id does not tie a customer to him again."""
    user = services.ensure_user(stripe.project, "ada")
    services.anonymise(user)
    event = stripe.subscription(metadata={"paygent_user_id": str(user.uuid)})
    assert stripe.deliver(event) == "unresolved"
    assert StripeCustomer.objects.using(stripe.project._state.db).get().user is None
