"""What was used, what was refused, and their sums."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import models
from django.db.models import F, Q

from paygent.core.windows import from_us
from paygent_django.models.fields import ExactCharField, ExactTextField, JsonTextField
from paygent_django.models.plans import Plan
from paygent_django.models.projects import Project
from paygent_django.models.users import USER_ID_COLUMN, EndUser

CORRECTION = "correction"
TAG_LENGTH = 100


class AppendOnlyQuerySet(models.QuerySet):
    """Rows that are written once; a correction is a new row. Only ``paygent_prune`` removes old ones."""

    def update(self, **_: Any) -> int:
        """Never."""
        raise TypeError(f"{self.model.__name__} is append-only: a correction is a new row")

    def delete(self) -> tuple[int, dict[str, int]]:
        """Never, but by ``paygent_prune``."""
        raise TypeError(f"{self.model.__name__} is append-only: old rows are removed by paygent_prune")


class AppendOnly(models.Model):
    """A row that is written once, by the ledger."""

    objects = AppendOnlyQuerySet.as_manager()

    class Meta:
        abstract = True

    def save(self, **options: Any) -> None:
        """Write a new row; a row that is there stays as it is."""
        if not self._state.adding:
            raise TypeError(f"{type(self).__name__} is append-only: a correction is a new row")
        super().save(**options)

    def delete(self, **_: Any) -> tuple[int, dict[str, int]]:
        """Never: see the manager."""
        raise TypeError(f"{type(self).__name__} is append-only")

    @property
    def timestamp(self) -> datetime:
        """``timestamp_us`` as an aware datetime in UTC."""
        return from_us(self.timestamp_us)


class UsageEvent(AppendOnly):
    """
    One metered call, or a correction of one. Fields are those of ``paygent.core.events.Event``.

    ``event_id`` counts once in its project, for ever. ``plan`` is what bound the user when the row arrived;
    ``tag`` is ``metadata["feature"]``. A correction (``source="correction"``) has amounts below zero and
    names the event that it ``corrects``.
    """

    project = models.ForeignKey(
        Project, models.PROTECT, db_constraint=False, db_index=False, related_name="+"
    )
    user = models.ForeignKey(EndUser, models.PROTECT, related_name="events", db_index=False)
    plan = models.ForeignKey(
        Plan, models.PROTECT, null=True, db_constraint=False, db_index=False, related_name="+"
    )
    event_id = ExactCharField(max_length=100)
    timestamp_us = models.BigIntegerField()
    received_us = models.BigIntegerField()
    period = models.CharField(max_length=32)
    session = ExactTextField()
    session_id = ExactTextField(null=True)
    provider = ExactTextField(null=True)
    operation = ExactTextField(null=True)
    model = ExactTextField(null=True)
    request_model = ExactTextField(null=True)
    response_model = ExactTextField(null=True)
    input_tokens = models.BigIntegerField()
    output_tokens = models.BigIntegerField()
    cache_read_input_tokens = models.BigIntegerField()
    cache_write_input_tokens = models.BigIntegerField()
    reasoning_output_tokens = models.BigIntegerField()
    cost_tokens_nusd = models.BigIntegerField()
    cost_tools_nusd = models.BigIntegerField()
    cost_nusd = models.BigIntegerField()
    tool_calls = JsonTextField(null=True)
    metadata = JsonTextField(null=True)
    source = ExactCharField(max_length=32)
    estimated = models.BooleanField()
    cost_explicit = models.BooleanField()
    rate_source = ExactTextField(null=True)
    description = ExactTextField(null=True)
    tag = ExactCharField(max_length=TAG_LENGTH)
    corrects = ExactCharField(max_length=100, null=True)

    class Meta:
        db_table = "paygent_event"
        verbose_name = "event"
        indexes = [
            models.Index(fields=["user", "timestamp_us"], name="paygent_event_by_user"),
            models.Index(fields=["project", "timestamp_us"], name="paygent_event_by_project"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["project", "event_id"], name="paygent_event_id"),
            models.CheckConstraint(
                condition=Q(cost_nusd=F("cost_tokens_nusd") + F("cost_tools_nusd")), name="paygent_event_cost"
            ),
            models.CheckConstraint(
                condition=Q(source=CORRECTION)
                | Q(
                    cost_tokens_nusd__gte=0, cost_tools_nusd__gte=0, input_tokens__gte=0, output_tokens__gte=0
                ),
                name="paygent_event_amounts",
            ),
        ]

    def __str__(self) -> str:
        return str(self.event_id)


class GateEvent(AppendOnly):
    """One decision of the gate other than *ok*, or ``count`` equal ones within a second."""

    project = models.ForeignKey(
        Project, models.PROTECT, db_constraint=False, db_index=False, related_name="+"
    )
    user = models.ForeignKey(EndUser, models.PROTECT, related_name="gate_events", db_index=False)
    gate_id = ExactCharField(max_length=100)
    timestamp_us = models.BigIntegerField()
    session_id = ExactTextField(null=True)
    status = ExactCharField(max_length=32)
    gate_reason = ExactTextField(null=True)
    usage_pct = models.FloatField()
    current_value = models.FloatField()
    limit_value = models.FloatField()
    model = ExactTextField(null=True)
    blocked = models.BooleanField()
    message = ExactTextField(null=True)
    metadata = JsonTextField(null=True)
    count = models.PositiveIntegerField()

    class Meta:
        db_table = "paygent_gateevent"
        verbose_name = "decision"
        indexes = [
            models.Index(fields=["user", "timestamp_us"], name="paygent_gate_by_user"),
            models.Index(fields=["project", "timestamp_us"], name="paygent_gate_by_project"),
        ]
        constraints = [models.UniqueConstraint(fields=["project", "gate_id"], name="paygent_gate_id")]

    def __str__(self) -> str:
        return f"{self.status} {self.gate_reason or ''}".strip()


class Total(models.Model):
    """
    What was posted for a user on one scope within one window, in nano-dollars or tokens.

    The exact sum of the event rows, changed in the same transaction. ``key`` names scope and window, which
    are too long for an index of MySQL.
    """

    user = models.ForeignKey(EndUser, models.CASCADE, related_name="totals", db_index=False)
    window = ExactCharField(max_length=USER_ID_COLUMN)
    scope = ExactTextField()
    key = models.CharField(max_length=32)
    amount = models.BigIntegerField()

    class Meta:
        db_table = "paygent_total"
        indexes = [models.Index(fields=["user", "window"], name="paygent_total_by_window")]
        constraints = [models.UniqueConstraint(fields=["user", "key"], name="paygent_total_key")]

    def __str__(self) -> str:
        return f"{self.scope} in {self.window}: {self.amount}"


class Measures(models.Model):
    """What roll-ups add up."""

    calls = models.BigIntegerField(default=0)
    input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    cost_nusd = models.BigIntegerField(default=0)
    estimated_nusd = models.BigIntegerField(default=0)

    class Meta:
        abstract = True


class DailyUsage(Measures):
    """
    A project's usage by day (in UTC), plan, model and tag.

    Written by many processes at once, each into its own ``shard``, so that they do not wait for each other:
    always sum over the shards. ``key`` names plan, model and tag.
    """

    project = models.ForeignKey(
        Project, models.CASCADE, db_constraint=False, db_index=False, related_name="+"
    )
    day = models.DateField()
    plan = models.ForeignKey(
        Plan, models.CASCADE, null=True, db_constraint=False, db_index=False, related_name="+"
    )
    model = ExactTextField()
    tag = ExactCharField(max_length=TAG_LENGTH)
    key = models.CharField(max_length=32)
    shard = models.PositiveSmallIntegerField(default=0)

    class Meta:
        db_table = "paygent_dailyusage"
        verbose_name_plural = "overview"  # its page in the admin
        constraints = [
            models.UniqueConstraint(fields=["project", "day", "key", "shard"], name="paygent_dailyusage_key")
        ]

    def __str__(self) -> str:
        return f"{self.day} {self.model}"


class UserUsage(Measures):
    """A user's usage by day or by month (``grain``); ``starts`` is its first day."""

    DAY = 1
    MONTH = 2

    project = models.ForeignKey(
        Project, models.CASCADE, db_constraint=False, db_index=False, related_name="+"
    )
    user = models.ForeignKey(EndUser, models.CASCADE, related_name="usage", db_index=False)
    grain = models.PositiveSmallIntegerField()
    starts = models.DateField()

    class Meta:
        db_table = "paygent_userusage"
        # The top users of a month are sorted when they are asked for: with cost_nusd in an index each event
        # would write every index of this table twice.
        indexes = [models.Index(fields=["project", "starts", "grain"], name="paygent_userusage_span")]
        constraints = [
            models.UniqueConstraint(fields=["user", "grain", "starts"], name="paygent_userusage_key")
        ]

    def __str__(self) -> str:
        return f"{self.starts} {self.user_id}"


class DailyGate(models.Model):
    """A project's decisions by day (in UTC), status, reason and whether the call was blocked."""

    project = models.ForeignKey(
        Project, models.CASCADE, db_constraint=False, db_index=False, related_name="+"
    )
    day = models.DateField()
    status = ExactCharField(max_length=32)
    gate_reason = ExactTextField()
    blocked = models.BooleanField()
    key = models.CharField(max_length=32)
    shard = models.PositiveSmallIntegerField(default=0)
    count = models.BigIntegerField(default=0)

    class Meta:
        db_table = "paygent_dailygate"
        constraints = [
            models.UniqueConstraint(fields=["project", "day", "key", "shard"], name="paygent_dailygate_key")
        ]

    def __str__(self) -> str:
        return f"{self.day} {self.status}"
