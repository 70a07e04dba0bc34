"""End users, and what binds them."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib.auth import get_user_model
from django.db import models
from django.db.models import F, Q

from paygent_django.models.fields import MOMENT_MAX_US, ExactCharField, JsonTextField
from paygent_django.models.moments import now_us
from paygent_django.models.plans import Plan
from paygent_django.models.projects import Project

# 512 characters, and room for escaped NULs; four bytes each still fit a key of MySQL.
USER_ID_COLUMN = 740


class EndUser(models.Model):
    """
    A user of the app that a project is. This row is the lock of his account.

    ``external_user_id`` is the app's own name for him, any Unicode text. In an embedded app it is
    ``str(user.pk)``. ``own_config`` binds this user alone, in place of his plan. ``grant_nusd`` is what was
    granted on top of his limit in the period named ``grant_window`` (see :class:`Grant`).
    ``auth_user_id`` is the key, as text, of the project's own user whom the row is linked to.
    """

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    project = models.ForeignKey(Project, models.CASCADE, related_name="users", db_index=False)
    external_user_id = ExactCharField(max_length=USER_ID_COLUMN)
    # No foreign key: the project's users may live in another database, have keys of any type, or not be in
    # Django at all (see models.links).
    auth_user_id = ExactCharField(max_length=255, null=True, blank=True)
    name = ExactCharField(max_length=300, blank=True)
    email = ExactCharField(max_length=320, blank=True)
    metadata = JsonTextField(default=dict, blank=True)
    sdk_enabled = models.BooleanField(default=True)
    own_config = JsonTextField(null=True, blank=True)
    grant_window = models.CharField(max_length=32, blank=True, editable=False)
    grant_nusd = models.BigIntegerField(default=0, editable=False)
    contended_us = models.BigIntegerField(default=0, editable=False)
    created_us = models.BigIntegerField(default=now_us, editable=False)
    anonymised_us = models.BigIntegerField(null=True, blank=True, editable=False)

    class Meta:
        db_table = "paygent_enduser"
        verbose_name = "user"
        indexes = [models.Index(fields=["auth_user_id"], name="paygent_enduser_auth")]
        constraints = [
            models.UniqueConstraint(fields=["project", "external_user_id"], name="paygent_enduser_external"),
            models.CheckConstraint(condition=Q(grant_nusd__gte=0), name="paygent_enduser_grant"),
        ]

    def __str__(self) -> str:
        return str(self.name or self.external_user_id)

    @property
    def auth_user(self) -> Any:
        """The project's own user whom the row is linked to, if it is."""
        if self.auth_user_id is None:
            return None
        return get_user_model()._default_manager.filter(pk=self.auth_user_id).first()


class Subscription(models.Model):
    """
    What binds a user from ``starts_us`` to ``ends_us`` (exclusive); a user's never overlap.

    Without a *plan* the project's default plan applies. ``period_start_us`` and ``period_end_us`` are the
    billing period, which rolls on by its own length until somebody renews it; without one it is the calendar
    month in UTC.
    """

    FOREVER_US = MOMENT_MAX_US

    user = models.ForeignKey(EndUser, models.CASCADE, related_name="subscriptions", db_index=False)
    plan = models.ForeignKey(Plan, models.PROTECT, null=True, blank=True, related_name="subscriptions")
    starts_us = models.BigIntegerField()
    ends_us = models.BigIntegerField(default=MOMENT_MAX_US)
    period_start_us = models.BigIntegerField(null=True, blank=True)
    period_end_us = models.BigIntegerField(null=True, blank=True)
    reference = models.CharField(max_length=200, blank=True)  # of a payment provider
    created_us = models.BigIntegerField(default=now_us, editable=False)
    created_by = models.CharField(max_length=200, blank=True)

    class Meta:
        db_table = "paygent_subscription"
        # With PostgreSQL an exclusion constraint (in the migration) forbids every overlap.
        constraints = [
            models.UniqueConstraint(fields=["user", "starts_us"], name="paygent_subscription_start"),
            models.UniqueConstraint(fields=["user", "ends_us"], name="paygent_subscription_end"),
            models.CheckConstraint(condition=Q(starts_us__lt=F("ends_us")), name="paygent_subscription_span"),
            models.CheckConstraint(
                condition=Q(period_start_us__isnull=True, period_end_us__isnull=True)
                | Q(period_start_us__lt=F("period_end_us")),
                name="paygent_subscription_period",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user} on {self.plan or 'the default plan'}"


class Grant(models.Model):
    """Budget on top of a user's limit, for the period named ``window`` alone; never changed."""

    user = models.ForeignKey(EndUser, models.PROTECT, related_name="grants", db_index=False)
    key = ExactCharField(max_length=200)  # the same key grants once
    window = models.CharField(max_length=32)
    amount_nusd = models.BigIntegerField()
    reason = ExactCharField(max_length=500, blank=True)
    created_us = models.BigIntegerField(default=now_us, editable=False)
    created_by = models.CharField(max_length=200, blank=True)

    class Meta:
        db_table = "paygent_grant"
        constraints = [
            models.UniqueConstraint(fields=["user", "key"], name="paygent_grant_key"),
            models.CheckConstraint(condition=Q(amount_nusd__gt=0), name="paygent_grant_amount"),
        ]

    def __str__(self) -> str:
        return f"{self.amount_nusd} nano-dollars for {self.user}"
