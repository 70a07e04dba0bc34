"""Who is let in: what Stripe has signed, not long ago, and what is an event."""

import json
import logging

import pytest
from stripe_deliveries import SECRET

from paygent_django.contrib.stripe.models import StripeEvent

OTHER = "whsec_test_2"


def body_of(stripe):
    return json.dumps(stripe.subscription())


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({}, 200),
        ({"secret": "whsec_of_somebody_else"}, 400),
        ({"age_s": 301}, 400),
        ({"age_s": 290}, 200),
        ({"header": ""}, 400),
        ({"header": "t=abc,v1=00"}, 400),
        ({"header": "t=1,v1=\xe9"}, 400),
        ({"header": "v1=" + "0" * 64}, 400),
    ],
)
def test_only_what_stripe_signed_a_moment_ago_is_taken_in(stripe, given, status):
    """A wrong, missing, malformed or old signature is answered 400, and nothing is kept of it."""
    answer = stripe.post(body_of(stripe), **given)
    assert answer.status_code == status
    assert StripeEvent.objects.using(stripe.project._state.db).count() == (status == 200)
    assert (stripe.bound() is not None) == (status == 200)


def test_a_changed_body_is_not_taken_in(stripe):
    """The signature is that of the body: with another user in it, it no longer fits."""
    signed = stripe.post(body_of(stripe)).wsgi_request.headers["stripe-signature"]
    forged = body_of(stripe).replace('"ada"', '"eve"')
    assert stripe.post(forged, header=signed).status_code == 400
    assert stripe.bound("eve") is None


def test_two_secrets_while_one_is_exchanged(stripe, paygent_settings):
    """While the secret is exchanged both are good; the old one is not once it is gone."""
    paygent_settings["STRIPE_WEBHOOK_SECRET"] = [OTHER, SECRET]
    assert [stripe.post(body_of(stripe), secret).status_code for secret in (SECRET, OTHER)] == [200, 200]
    paygent_settings["STRIPE_WEBHOOK_SECRET"] = OTHER
    assert [stripe.post(body_of(stripe), secret).status_code for secret in (SECRET, OTHER)] == [400, 200]


@pytest.mark.parametrize("secret", [None, "", [], [""], " "])
def test_without_a_secret_nothing_is_taken_in(stripe, paygent_settings, secret):
    """A project without a secret answers 503, so that Stripe delivers again, whatever signed the event."""
    paygent_settings["STRIPE_WEBHOOK_SECRET"] = secret
    assert stripe.post(body_of(stripe), secret="").status_code == 503
    assert stripe.bound() is None


@pytest.mark.parametrize(
    "body",
    [
        "",
        "no JSON",
        "[]",
        "null",
        "{}",
        '{"id": "evt_1", "type": "invoice.paid", "created": 1}',
        '{"id": "evt_1", "type": "invoice.paid", "created": 1, "data": {"object": 5}}',
        '{"id": "evt_1", "type": "invoice.paid", "created": "1", "data": {"object": {}}}',
        '{"id": "", "type": "invoice.paid", "created": 1, "data": {"object": {}}}',
        '{"id": "evt_1", "created": 1, "data": {"object": {}}}',
    ],
)
def test_what_is_no_event_is_answered_400(stripe, body):
    """Something signed that is no event is refused, and says so without repeating it."""
    answer = stripe.post(body)
    assert (answer.status_code, answer.content) == (400, b"this is no event")


@pytest.mark.parametrize("value", [None, 5, "x", [], {}, {"data": None}, {"data": [None, 5]}, True])
@pytest.mark.parametrize("field", ["customer", "items", "metadata", "status", "cancel_at", "id"])
def test_a_shape_that_nobody_knows_breaks_nothing(stripe, field, value):
    """A field of a new shape never fails an event: it is answered 200, and kept as far as it can be."""
    assert stripe.deliver(stripe.subscription(**{field: value})) in ("applied", "unresolved", "ignored")


def test_only_posts_are_answered(stripe):
    """Anything but a POST is refused."""
    assert stripe.client.get("/stripe/webhook").status_code == 405


def test_no_cookie_is_needed_against_forged_requests(stripe):
    """Stripe has no CSRF token: the signature is what counts, also where the project checks tokens."""
    from django.test import Client, override_settings

    stripe.client = Client(enforce_csrf_checks=True)
    with override_settings(MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"]):
        assert stripe.post(body_of(stripe)).status_code == 200


def test_no_secret_is_logged(stripe, caplog):
    """Neither the secret nor a signature appears in the log, whether an event is refused or not."""
    caplog.set_level(logging.DEBUG)
    answers = [stripe.post(body_of(stripe)), stripe.post(body_of(stripe), "whsec_other")]
    for answer in answers:
        assert answer.wsgi_request.headers["stripe-signature"].rpartition("v1=")[2] not in caplog.text
    assert "whsec" not in caplog.text
