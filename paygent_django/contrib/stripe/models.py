"""What Stripe has said: its customers, their subscriptions as last told, and every event with its outcome."""

from __future__ import annotations

from django.db import models

from paygent_django.models import EndUser, Project
from paygent_django.models.fields import JsonTextField
from paygent_django.models.moments import now_us

ID_LENGTH = 255  # Stripe promises that its ids are no longer


class StripeCustomer(models.Model):
    """
    A customer, and the user he is here; ``user`` is empty until an event says so.

    ``told_s`` is the time of the event that said so, ``bound`` what was last set on the user's account for
    one of this customer's subscriptions: ``[plan, period start, period end, subscription, ends]``. This row
    is the lock of all that is kept of a customer.
    """

    project = models.ForeignKey(Project, models.CASCADE, related_name="+", db_index=False)
    customer_id = models.CharField(max_length=ID_LENGTH)
    user = models.ForeignKey(EndUser, models.CASCADE, null=True, related_name="stripe_customers")
    told_s = models.BigIntegerField(default=0)
    bound = JsonTextField(null=True)

    class Meta:
        db_table = "paygent_stripe_customer"
        constraints = [
            models.UniqueConstraint(fields=["project", "customer_id"], name="paygent_stripe_customer_id")
        ]

    def __str__(self) -> str:
        return str(self.customer_id)


class StripeSubscription(models.Model):
    """
    A subscription as the newest event told it.

    ``status`` is Stripe's word, empty as long as only invoices were seen. ``items`` has an object for each
    price with its own period, see ``payloads.Item``, ``plan`` is the plan that its own metadata name.
    ``order`` and ``invoice_s`` say how new all this is (see ``merging``), ``note`` why it binds nobody.
    """

    customer = models.ForeignKey(StripeCustomer, models.CASCADE, related_name="subscriptions", db_index=False)
    subscription_id = models.CharField(max_length=ID_LENGTH)
    status = models.CharField(max_length=32, blank=True)
    items = JsonTextField(default=list)
    plan = models.CharField(max_length=500, blank=True)
    ends_s = models.BigIntegerField(null=True)
    order = JsonTextField(default=list)
    invoice_s = models.BigIntegerField(default=0)
    note = models.CharField(max_length=500, blank=True)

    class Meta:
        db_table = "paygent_stripe_subscription"
        constraints = [
            models.UniqueConstraint(
                fields=["customer", "subscription_id"], name="paygent_stripe_subscription_id"
            )
        ]

    def __str__(self) -> str:
        return f"{self.subscription_id} ({self.status or 'invoices only'})"


class StripeEvent(models.Model):
    """
    An event of Stripe's, and what became of it here.

    ``applied``: what it says is in the books. ``stale``: something newer was known. ``ignored``: it says
    nothing about plans. ``unresolved``: kept until customer or price are known, ``note`` says which.
    """

    OUTCOMES = [(word, word) for word in ("applied", "stale", "ignored", "unresolved")]

    project = models.ForeignKey(Project, models.CASCADE, related_name="+", db_index=False)
    event_id = models.CharField(max_length=ID_LENGTH)
    kind = models.CharField(max_length=100)
    created_s = models.BigIntegerField()
    received_us = models.BigIntegerField(default=now_us)
    customer_id = models.CharField(max_length=ID_LENGTH, blank=True)
    subscription_id = models.CharField(max_length=ID_LENGTH, blank=True)
    outcome = models.CharField(max_length=16, choices=OUTCOMES, default="unresolved")
    note = models.CharField(max_length=500, blank=True)

    class Meta:
        db_table = "paygent_stripe_event"
        constraints = [
            models.UniqueConstraint(fields=["project", "event_id"], name="paygent_stripe_event_id")
        ]
        indexes = [models.Index(fields=["project", "outcome", "id"], name="paygent_stripe_event_outcome")]

    def __str__(self) -> str:
        return f"{self.kind} {self.event_id}: {self.outcome}"
