"""The app in a project: system checks, migrations, pages of the admin."""

from django.contrib import admin
from django.core.checks import run_checks
from django.core.management import call_command
from django.test import RequestFactory, override_settings

from paygent_django.contrib.stripe import conf
from paygent_django.contrib.stripe.models import StripeCustomer, StripeEvent, StripeSubscription


def found():
    return [one.id for one in run_checks() if one.id.startswith("paygent_stripe")]


def test_a_missing_secret_is_reported(paygent_settings):
    """The system check names what is missing; with a secret it is silent."""
    assert found() == []
    with override_settings(PAYGENT={}):
        assert found() == ["paygent_stripe.E001"]


def test_the_migration_is_complete(django_unblocked):
    """No change of the models is without a migration."""
    call_command("makemigrations", "paygent_stripe", check=True, dry_run=True, verbosity=0)


def test_the_pages_of_the_admin_are_read_only(stripe):
    """What Stripe said can be looked at, by nobody changed."""
    stripe.deliver(stripe.subscription("created"))
    request = RequestFactory().get("/")
    for model in (StripeCustomer, StripeEvent, StripeSubscription):
        page = admin.site._registry[model]
        assert not page.has_add_permission(request)
        assert not page.has_change_permission(request)
        assert not page.has_delete_permission(request)


def test_the_secrets_are_read_anew(paygent_settings):
    """A secret is used as it stands in the settings, without what surrounds it."""
    paygent_settings["STRIPE_WEBHOOK_SECRET"] = " whsec_a \n"
    assert conf.secrets() == ("whsec_a",)
