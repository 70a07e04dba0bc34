"""What an event does to its user: plan, period, end."""

import json

import pytest
from stripe_deliveries import DAY_S, NEXT, NOW_S, PERIOD, START_S, golden, moment

from paygent_django import services
from paygent_django.models import Subscription


def spans(stripe, name="ada"):
    rows = Subscription.objects.using(stripe.project._state.db).filter(user=stripe.user(name))
    return list(rows.order_by("starts_us"))


@pytest.mark.parametrize("name", ["customer.subscription.updated", "invoice.paid"])
@pytest.mark.parametrize("version", ["endive", "acacia"])
def test_the_shapes_of_old_and_new_api_versions(stripe, name, version):
    """Subscription and invoice, each as its API version writes it, set the plan and the period in it."""
    assert stripe.deliver(golden(f"{name}.{version}")) == "applied"
    (row,) = spans(stripe)
    assert (row.plan.name, row.reference, row.created_by) == ("pro", "sub_1Ada", "stripe")
    assert (row.period_start_us, row.period_end_us) == (1767225600 * 10**6, 1769904000 * 10**6)


def test_a_real_month_is_the_billing_period(stripe):
    """The user's period is that of the subscription's item."""
    stripe.deliver(stripe.subscription("created"))
    assert stripe.bound() == ("pro", PERIOD)


def test_a_renewal_moves_the_period(stripe):
    """The next period applies when the subscription's snapshot says so."""
    stripe.deliver(stripe.subscription("created"))
    early = (START_S - 30 * DAY_S, START_S)
    later = (START_S, NOW_S + 20 * DAY_S)
    stripe.deliver(stripe.subscription(period=early), stripe.subscription(period=later))
    assert stripe.bound() == ("pro", later)


def test_an_upgrade_keeps_what_was_used(stripe):
    """Another price in the same period is another plan with the same account."""
    stripe.deliver(stripe.subscription("created"), stripe.subscription(price="price_team"))
    assert stripe.bound() == ("team", PERIOD)
    assert [row.plan.name for row in spans(stripe)] == ["pro", "team"]


def test_the_invoice_of_a_change_in_mid_period_moves_nothing(stripe):
    """A prorated line is for the rest of a period, and is not taken for one of its own."""
    stripe.deliver(stripe.subscription("created"))
    stripe.deliver(stripe.invoice(period=(NOW_S, PERIOD[1] + DAY_S), proration=True))
    assert stripe.bound() == ("pro", PERIOD)


def test_invoices_alone_suffice(stripe):
    """A project that is sent only paid invoices has plan and period from them, and the next ones too."""
    stripe.deliver(stripe.invoice(period=(START_S - 30 * DAY_S, START_S)), stripe.invoice())
    assert stripe.bound() == ("pro", PERIOD)
    stripe.deliver(stripe.invoice(price="price_team"))
    assert stripe.bound() == ("team", PERIOD)


def test_a_paid_invoice_brings_the_next_period_before_the_subscription_does(stripe):
    """An invoice's later period counts at once; an older snapshot that comes after it does not undo it."""
    before = (START_S - 30 * DAY_S, START_S)
    stripe.deliver(stripe.subscription("created", period=before))
    late = stripe.subscription(period=before)
    stripe.deliver(stripe.invoice())
    assert stripe.bound() == ("pro", PERIOD)
    stripe.deliver(late)
    assert stripe.bound() == ("pro", PERIOD)


def test_an_invoice_never_brings_an_old_plan_back(stripe):
    """Where the subscription itself has been seen, its plan is the one that counts."""
    stripe.deliver(stripe.subscription("created", price="price_team"))
    stripe.deliver(stripe.invoice(period=PERIOD, price="price_pro"))
    assert stripe.bound() == ("team", PERIOD)


@pytest.mark.parametrize(
    ("status", "binds"),
    [
        ("active", True),
        ("trialing", True),
        ("past_due", True),
        ("unpaid", False),
        ("incomplete", False),
        ("paused", False),
        ("canceled", False),
        ("incomplete_expired", False),
        ("something new", False),
    ],
)
def test_which_states_bind(stripe, status, binds):
    """Paid, tried out or in Stripe's retries it binds; otherwise the default plan applies."""
    stripe.deliver(stripe.subscription("created"), stripe.subscription(status=status))
    assert (stripe.bound() is not None) == binds


def test_a_project_chooses_the_states_that_bind(stripe, paygent_settings):
    """A project that does not wait for late payers leaves past_due out."""
    paygent_settings["STRIPE_STATUSES"] = ["active", "trialing"]
    stripe.deliver(stripe.subscription("created"), stripe.subscription(status="past_due"))
    assert stripe.bound() is None
    stripe.deliver(stripe.subscription(status="active"))
    assert stripe.bound() == ("pro", PERIOD)


def test_a_deleted_subscription_ends_now(stripe):
    """What was cancelled ends when Stripe says so, and the default plan applies."""
    stripe.deliver(stripe.subscription("created"), stripe.subscription("deleted", status="canceled"))
    assert stripe.bound() is None
    assert [row.ends_us < Subscription.FOREVER_US for row in spans(stripe)] == [True]


@pytest.mark.parametrize("how", [{"cancel_at_period_end": True}, {"cancel_at": PERIOD[1]}])
def test_a_cancellation_to_come_is_kept_ready(stripe, how):
    """A subscription that is to end at its period's end does so even if no event says that it has."""
    stripe.deliver(stripe.subscription("created"), stripe.subscription(**how))
    assert stripe.bound() == ("pro", PERIOD)
    assert spans(stripe)[-1].ends_us == PERIOD[1] * 10**6
    stripe.deliver(stripe.subscription())  # he has changed his mind
    assert spans(stripe)[-1].ends_us == Subscription.FOREVER_US


def test_a_period_to_come_is_scheduled(stripe):
    """A subscription whose period has not begun binds from its start."""
    stripe.deliver(stripe.subscription("created", period=NEXT))
    (row,) = spans(stripe)
    assert (row.starts_us, stripe.bound()) == (NEXT[0] * 10**6, None)


def test_of_two_subscriptions_the_higher_plan_counts(stripe):
    """A second subscription lifts the user; when it ends, the first one still holds."""
    stripe.deliver(stripe.subscription("created"))
    stripe.deliver(stripe.subscription("created", id="sub_2", customer="cus_Other", price="price_team"))
    assert stripe.bound()[0] == "team"
    stripe.deliver(stripe.subscription("deleted", id="sub_2", customer="cus_Other", status="canceled"))
    assert stripe.bound() == ("pro", PERIOD)


def test_the_end_of_an_old_subscription_leaves_the_new_one(stripe):
    """Who has subscribed anew before the old subscription is deleted keeps the new one."""
    stripe.deliver(stripe.subscription("created", id="sub_old"))
    stripe.deliver(stripe.subscription("created", id="sub_new"))
    stripe.deliver(stripe.subscription("deleted", id="sub_old", status="canceled"))
    assert stripe.bound() == ("pro", PERIOD)
    assert services.running(stripe.user()).reference == "sub_new"


def test_a_change_by_hand_stays_until_stripe_says_something_else(stripe):
    """What support sets by hand is left alone by an event with the same terms; one with new terms counts."""
    stripe.deliver(stripe.subscription("created"))
    services.change_plan(stripe.user(), services.find_plan(stripe.project, "team"))
    stripe.deliver(stripe.subscription(default_payment_method="pm_2"))
    assert stripe.bound()[0] == "team"
    stripe.deliver(stripe.subscription(period=(START_S + 1, PERIOD[1])))
    assert stripe.bound()[0] == "pro"


def test_the_end_leaves_a_plan_that_was_set_by_hand(stripe):
    """What support has given is not Stripe's to end."""
    stripe.deliver(stripe.subscription("created"))
    services.change_plan(stripe.user(), services.find_plan(stripe.project, "team"))
    stripe.deliver(stripe.subscription("deleted", status="canceled"))
    assert stripe.bound()[0] == "team"


def test_a_grant_stays_with_its_period(stripe):
    """What was granted in a period is not touched by an upgrade in it."""
    stripe.deliver(stripe.subscription("created"))
    services.grant(stripe.user(), 5 * 10**9)
    stripe.deliver(stripe.subscription(price="price_team"))
    user = stripe.user()
    assert (user.grant_nusd, user.grant_window) == (5 * 10**9, services.period_of(user).key)
    assert services.period_of(user).start_us == int(moment(START_S).timestamp()) * 10**6


@pytest.mark.parametrize(
    ("change", "plan"),
    [
        ({"id": "price_x", "product": "prod_team"}, "team"),
        ({"id": "price_x", "lookup_key": "team_monthly"}, "team"),
        ({"id": "price_x", "lookup_key": "pro"}, "pro"),
        ({"id": "price_x", "metadata": {"paygent_plan": "team"}}, "team"),
        ({"id": "price_x", "product": {"id": "prod_y", "metadata": {"paygent_plan": "team"}}}, "team"),
        ({"id": "price_pro", "lookup_key": "team_monthly"}, "pro"),
    ],
)
def test_what_names_the_plan_of_a_price(stripe, paygent_settings, change, plan):
    """Settings go by price, lookup key or product; then come metadata, and a lookup key that is a plan."""
    paygent_settings["STRIPE_PLANS"] |= {"prod_team": "team", "team_monthly": "team"}
    event = stripe.subscription("created")
    event["data"]["object"]["items"]["data"][0]["price"] |= change
    assert stripe.deliver(event) == "applied"
    assert stripe.bound()[0] == plan


def test_the_subscription_itself_may_name_its_plan(stripe):
    """The metadata paygent_plan of a subscription names the plan of a price that nothing else names."""
    named = {"external_user_id": "ada", "paygent_plan": "team"}
    stripe.deliver(stripe.subscription("created", price="price_x", metadata=named))
    assert stripe.bound()[0] == "team"


def test_a_price_beside_the_plan_does_no_harm(stripe):
    """An add-on without a plan of its own leaves the plan and its period as they are."""
    event = stripe.subscription("created")
    rows = event["data"]["object"]["items"]["data"]
    extra = json.loads(json.dumps(rows[0]))
    extra["price"]["id"], extra["current_period_end"] = "price_seats", NEXT[1]
    rows.insert(0, extra)
    assert stripe.deliver(event) == "applied"
    assert stripe.bound() == ("pro", PERIOD)


def test_the_end_after_a_reset_period_is_the_end(stripe):
    """A subscription whose period support has reset does not come back at the end of that period."""
    stripe.deliver(stripe.subscription("created"))
    services.reset_period(stripe.user())
    assert {row.reference for row in spans(stripe)} == {spans(stripe)[0].reference} != {""}
    stripe.deliver(stripe.subscription("deleted", status="canceled"))
    assert stripe.bound() is None
    assert services.running(stripe.user(), (PERIOD[1] + DAY_S) * 10**6) is None
