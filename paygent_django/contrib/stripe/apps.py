"""The Django app ``paygent_django.contrib.stripe``."""

from __future__ import annotations

from django.apps import AppConfig


class PaygentStripeConfig(AppConfig):
    """What Stripe says about customers, kept and applied to their subscriptions here."""

    name = "paygent_django.contrib.stripe"
    label = "paygent_stripe"
    verbose_name = "Paygent: Stripe"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks, and what becomes of a user's links when he is made anonymous."""
        from paygent_django.contrib.stripe import checks, personal

        checks.connect()
        personal.connect()
