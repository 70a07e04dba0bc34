"""Plans and their versions."""

from __future__ import annotations

import uuid
from typing import Any

from django.db import models
from django.db.models import Q

from paygent.core.models import PlanConfig
from paygent_django.models.fields import ExactCharField, JsonTextField
from paygent_django.models.moments import now_us
from paygent_django.models.projects import Project


class Plan(models.Model):
    """
    A plan by its name. What it says is in its versions: ``current`` binds from now on.

    A plan without a version was assigned by name before anybody configured it; it has no limits.
    """

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    project = models.ForeignKey(Project, models.CASCADE, related_name="plans", db_index=False)
    name = ExactCharField(max_length=500)
    current = models.OneToOneField(
        "paygent_django.PlanVersion", models.PROTECT, null=True, blank=True, related_name="+"
    )
    is_archived = models.BooleanField(default=False)
    created_us = models.BigIntegerField(default=now_us, editable=False)

    class Meta:
        db_table = "paygent_plan"
        constraints = [models.UniqueConstraint(fields=["project", "name"], name="paygent_plan_name")]

    def __str__(self) -> str:
        return str(self.name)

    @property
    def label(self) -> str:
        """What users read."""
        return (self.current.label if self.current else "") or str(self.name)

    @property
    def config(self) -> PlanConfig | None:
        """The plan as a value; ``None``: never configured, so without limits."""
        return self.current.plan_config if self.current else None


class PlanVersion(models.Model):
    """
    What a plan said from ``created_us`` on; never changed, only followed by another one.

    ``price_nano`` is in billionths of ``currency`` per ``interval``; ``None``: no price is known. ``key``
    names the content of ``config``, as in the ledger.
    """

    INTERVALS = [("month", "month"), ("year", "year"), ("week", "week"), ("day", "day"), ("once", "once")]

    plan = models.ForeignKey(Plan, models.CASCADE, related_name="versions", db_index=False)
    number = models.PositiveIntegerField()
    key = models.CharField(max_length=32)
    config = JsonTextField()
    label = models.CharField(max_length=200, blank=True)
    price_nano = models.BigIntegerField(null=True, blank=True)
    currency = models.CharField(max_length=3, default="USD")
    interval = models.CharField(max_length=16, default="month", choices=INTERVALS)
    rank = models.IntegerField(default=0)
    created_us = models.BigIntegerField(default=now_us, editable=False)
    created_by = models.CharField(max_length=200, blank=True)

    class Meta:
        db_table = "paygent_planversion"
        constraints = [
            models.UniqueConstraint(fields=["plan", "number"], name="paygent_planversion_number"),
            models.CheckConstraint(
                condition=Q(price_nano__isnull=True) | Q(price_nano__gte=0), name="paygent_planversion_price"
            ),
            models.CheckConstraint(condition=Q(number__gte=1), name="paygent_planversion_first"),
        ]

    def __str__(self) -> str:
        return f"{self.plan.name} v{self.number}"

    @property
    def plan_config(self) -> PlanConfig:
        """The limits and rates; what a newer version may have added is left out."""
        config: dict[str, Any] = self.config
        return PlanConfig.from_backend(config)
