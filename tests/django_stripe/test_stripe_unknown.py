"""Users and prices that nobody knows yet: kept, said, and applied once they are known."""

import io
import json

import pytest
from django.core.management import call_command
from stripe_deliveries import PERIOD

from paygent_django import services
from paygent_django.contrib.stripe.models import StripeEvent


def last_note(stripe):
    return StripeEvent.objects.using(stripe.project._state.db).order_by("pk").last().note


def named_by_email(customer_id, metadata):
    return "ada" if (customer_id, metadata.get("team")) == ("cus_Ada", "blue") else None


def test_an_unknown_customer_is_kept_until_a_checkout_names_him(stripe, caplog):
    """A subscription of nobody is answered 200 and noted; the checkout that names the user applies it."""
    assert stripe.deliver(stripe.subscription("created", metadata={})) == "unresolved"
    assert "whose customer" in last_note(stripe)
    assert "whose customer" in caplog.text
    assert stripe.deliver(stripe.checkout()) == "applied"
    assert stripe.bound() == ("pro", PERIOD)


def test_a_checkout_may_come_first(stripe):
    """Who a customer is stays known for the events to come."""
    stripe.deliver(stripe.checkout(), stripe.subscription("created", metadata={}))
    assert stripe.bound() == ("pro", PERIOD)


def test_the_metadata_of_a_customer_name_him(stripe):
    """An update of the customer himself says who he is."""
    stripe.deliver(stripe.subscription("created", metadata={}))
    event = stripe.checkout(id="cus_Ada", metadata={"external_user_id": "ada"})
    assert stripe.deliver(event | {"type": "customer.updated"}) == "applied"
    assert stripe.bound() == ("pro", PERIOD)


def test_our_own_id_names_a_user(stripe):
    """The metadata paygent_user_id goes before what the app calls him."""
    bob = services.ensure_user(stripe.project, "bob")
    metadata = {"paygent_user_id": str(bob.uuid), "external_user_id": "ada"}
    stripe.deliver(stripe.subscription("created", metadata=metadata))
    assert (stripe.bound("bob"), stripe.bound("ada")) == (("pro", PERIOD), None)


@pytest.mark.parametrize("given", ["nobody", "00000000-0000-4000-8000-000000000000"])
def test_an_id_of_ours_that_is_nobodys_is_noted(stripe, given):
    """Such an id is never taken for a user's name in the app."""
    assert stripe.deliver(stripe.subscription(metadata={"paygent_user_id": given})) == "unresolved"
    assert "paygent_user_id" in last_note(stripe)
    assert stripe.user(given) is None


@pytest.mark.parametrize(
    "named",
    [{"paygent_user_id": "nonsense"}, {"external_user_id": "a" * 600}],
    ids=["unreadable", "too-long"],
)
def test_an_event_that_misnames_its_user_binds_whom_the_customer_is_known_to_be(stripe, named):
    """A cancellation takes effect at once, and is noted so that somebody mends the name."""
    stripe.deliver(stripe.subscription("created"))
    ended = stripe.subscription("deleted", status="canceled", metadata=named)
    assert stripe.deliver(ended) == "unresolved"
    assert last_note(stripe).startswith(next(iter(named)))
    assert stripe.bound() is None


@pytest.mark.parametrize("name", ["org/42?x=#é 💥", "a" * 512])
def test_any_name_of_a_user_will_do(stripe, name):
    """Users are called what the app calls them."""
    stripe.deliver(stripe.subscription("created", metadata={"external_user_id": name}))
    assert stripe.bound(name) == ("pro", PERIOD)


def test_a_name_that_cannot_be_one_is_noted(stripe):
    """A user id that is too long is noted, and the event is answered 200."""
    event = stripe.subscription("created", metadata={"external_user_id": "a" * 600})
    assert stripe.deliver(event) == "unresolved"
    assert last_note(stripe).startswith("external_user_id")


def test_a_project_finds_its_users_its_own_way(stripe, paygent_settings):
    """The callable STRIPE_USER goes before all metadata; where it knows nobody, they count."""
    paygent_settings["STRIPE_USER"] = "test_stripe_unknown.named_by_email"
    stripe.deliver(stripe.subscription("created", metadata={"external_user_id": "eve", "team": "blue"}))
    assert (stripe.bound("ada"), stripe.bound("eve")) == (("pro", PERIOD), None)
    stripe.deliver(
        stripe.subscription("created", id="sub_2", customer="cus_2", metadata={"external_user_id": "eve"})
    )
    assert stripe.bound("eve") == ("pro", PERIOD)


def test_a_payment_link_names_nobody_who_is_known(stripe):
    """Anybody can write a client_reference_id into a payment link: it moves no customer to another user."""
    stripe.deliver(stripe.subscription("created"), stripe.checkout(client_reference_id="eve"))
    assert (stripe.bound("ada"), stripe.bound("eve")) == (("pro", PERIOD), None)


def test_a_cheap_payment_link_takes_nothing_away(stripe):
    """A second customer who claims to be a user cannot lower his plan."""
    stripe.deliver(stripe.subscription("created", price="price_team"))
    cheap = stripe.subscription("created", id="sub_2", customer="cus_Eve", metadata={})
    stripe.deliver(stripe.checkout(customer="cus_Eve", client_reference_id="ada"), cheap)
    assert stripe.bound()[0] == "team"


def test_a_customer_who_becomes_somebody_else_takes_his_plan_along(stripe):
    """When the metadata name another user, the first one loses what the customer pays for."""
    stripe.deliver(stripe.subscription("created"))
    stripe.deliver(stripe.subscription(metadata={"external_user_id": "bob"}))
    assert (stripe.bound("ada"), stripe.bound("bob")) == (None, ("pro", PERIOD))


def test_an_older_event_does_not_say_who_he_is(stripe):
    """Which user a customer is, is what the newest event said."""
    old = stripe.subscription("created")
    stripe.deliver(stripe.subscription(metadata={"external_user_id": "bob"}), old)
    assert (stripe.bound("ada"), stripe.bound("bob")) == (None, ("pro", PERIOD))


def test_an_unknown_price_changes_nothing(stripe):
    """A user whose new price stands for no plan keeps what he has; the note names the price."""
    stripe.deliver(stripe.subscription("created"))
    assert stripe.deliver(stripe.subscription(price="price_new")) == "unresolved"
    assert last_note(stripe).endswith("price_new")
    assert stripe.bound() == ("pro", PERIOD)


def test_a_plan_that_nobody_configured_is_no_plan(stripe, paygent_settings):
    """A mapping to a plan that does not exist never makes one without limits."""
    paygent_settings["STRIPE_PLANS"] = {"price_pro": "gold"}
    assert stripe.deliver(stripe.subscription("created")) == "unresolved"
    assert services.find_plan(stripe.project, "gold") is None
    assert stripe.bound() is None


def test_a_corrected_setting_is_applied_by_a_retry(stripe, paygent_settings):
    """The command lists what waits; with --retry it applies what the settings know by now."""
    stripe.deliver(stripe.subscription("created", price="price_new"))
    listed, left = io.StringIO(), io.StringIO()
    call_command("paygent_stripe", format="json", stdout=listed)
    assert [row["note"][-9:] for row in json.loads(listed.getvalue())] == ["price_new"]
    paygent_settings["STRIPE_PLANS"]["price_new"] = "team"
    call_command("paygent_stripe", retry=True, stdout=left)
    assert left.getvalue().strip() == "(none)"
    assert stripe.bound() == ("team", PERIOD)


def test_what_was_not_applied_may_be_sent_again(stripe, paygent_settings):
    """An event resent from Stripe's dashboard is not taken for a duplicate while it waits."""
    event = stripe.subscription("created", price="price_new")
    assert stripe.deliver(event) == "unresolved"
    paygent_settings["STRIPE_PLANS"]["price_new"] = "team"
    assert stripe.deliver(event) == "applied"
    assert stripe.bound() == ("team", PERIOD)


@pytest.mark.parametrize("kind", ["invoice.created", "charge.succeeded", "a.new.one"])
def test_events_that_say_nothing_about_plans_are_ignored(stripe, kind):
    """Everything else that an endpoint may be sent is answered 200 and has no effect."""
    assert stripe.deliver(stripe.subscription() | {"type": kind}) == "ignored"
    assert stripe.bound() is None


def test_a_payment_that_is_no_subscription_is_ignored(stripe):
    """An invoice of its own and a checkout in mode payment say nothing about plans."""
    alone = stripe.invoice(parent=None)
    assert stripe.deliver(alone) == "ignored"
    assert stripe.deliver(stripe.checkout(mode="payment")) == "ignored"
