"""Where a project wants to hear of what happened, and what it was told."""

from __future__ import annotations

import secrets
import uuid

from django.db import models

from paygent_django.models.fields import ExactTextField, JsonTextField
from paygent_django.models.moments import now_us
from paygent_django.models.projects import Project
from paygent_django.models.users import EndUser


def new_secret() -> str:
    """A secret to sign deliveries with."""
    return "whsec_" + secrets.token_urlsafe(32)


class WebhookEndpoint(models.Model):
    """
    An address that is told of events; an empty ``events`` means all of them.

    ``secret`` signs deliveries with HMAC-SHA256; it must be readable to sign, and is never shown again.
    An address that lets us wait is left alone until ``paused_until_us``, longer with each of its ``timeouts``
    in a row.
    """

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    project = models.ForeignKey(Project, models.CASCADE, related_name="webhook_endpoints")
    url = ExactTextField()
    secret = models.CharField(max_length=200, default=new_secret, editable=False)
    events = JsonTextField(default=list, blank=True)
    description = models.CharField(max_length=200, blank=True)
    is_enabled = models.BooleanField(default=True)
    created_us = models.BigIntegerField(default=now_us, editable=False)
    paused_until_us = models.BigIntegerField(default=0, editable=False)
    timeouts = models.PositiveSmallIntegerField(default=0, editable=False)

    class Meta:
        db_table = "paygent_webhookendpoint"
        verbose_name = "webhook"

    def __str__(self) -> str:
        return str(self.url)


class WebhookDelivery(models.Model):
    """
    One event for one endpoint; tried until ``delivered_us`` is set or ``attempts`` run out.

    The row is also the memory that something was told: it is kept until ``period_end_us``, when the period
    that it tells of is over. ``user`` is whom it names, if anybody.
    """

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)  # the receiver's idempotency key
    endpoint = models.ForeignKey(WebhookEndpoint, models.CASCADE, related_name="deliveries")
    user = models.ForeignKey(EndUser, models.CASCADE, null=True, blank=True, related_name="+")
    event = models.CharField(max_length=100)
    body = JsonTextField()
    attempts = models.PositiveIntegerField(default=0)
    next_attempt_us = models.BigIntegerField(null=True, default=now_us)  # NULL: nothing more is tried
    delivered_us = models.BigIntegerField(null=True, blank=True)
    response_status = models.PositiveSmallIntegerField(null=True, blank=True)
    last_error = ExactTextField(blank=True)
    created_us = models.BigIntegerField(default=now_us, editable=False)
    period_end_us = models.BigIntegerField(default=0, editable=False)

    class Meta:
        db_table = "paygent_webhookdelivery"
        verbose_name_plural = "webhook deliveries"
        indexes = [models.Index(fields=["next_attempt_us"], name="paygent_delivery_due")]

    def __str__(self) -> str:
        return f"{self.event} to {self.endpoint}"


class WebhookNews(models.Model):
    """
    What is in the books and was not looked at yet by whoever tells: a user who has used more, or a decision.

    The ledger writes it in the transaction of the usage or decision itself, where a project has an address.
    Whoever has queued what there is to tell of it removes it.
    """

    user = models.ForeignKey(EndUser, models.CASCADE, related_name="+", db_index=False)
    gate_pk = models.BigIntegerField(null=True)  # the row of the decision; NULL: the user has used more

    class Meta:
        db_table = "paygent_webhooknews"

    def __str__(self) -> str:
        return f"{self.user_id}: {self.gate_pk or 'usage'}"
