"""What processes hold, and what is remembered between their calls."""

from __future__ import annotations

from django.db import models

from paygent_django.models.fields import ExactCharField, ExactTextField, JsonTextField
from paygent_django.models.projects import Project
from paygent_django.models.users import USER_ID_COLUMN, EndUser


class Lease(models.Model):
    """
    What one process holds on the account of one user until ``expires_us``.

    ``amounts`` is a list of ``[scope, window, amount]``. ``seq`` numbers its operations; ``denied`` and
    ``busy`` answer the last one if it is repeated.
    """

    user = models.ForeignKey(EndUser, models.CASCADE, related_name="leases", db_index=False)
    lease_id = ExactCharField(max_length=100, db_index=True)
    seq = models.BigIntegerField()
    expires_us = models.BigIntegerField(db_index=True)
    amounts = JsonTextField()
    denied = ExactTextField(null=True)
    busy = models.BooleanField()

    class Meta:
        db_table = "paygent_lease"
        constraints = [models.UniqueConstraint(fields=["user", "lease_id"], name="paygent_lease_id")]

    def __str__(self) -> str:
        return str(self.lease_id)


class Session(models.Model):
    """A running or ended session; an empty ``own_id`` is the user's default one."""

    user = models.ForeignKey(EndUser, models.CASCADE, related_name="sessions", db_index=False)
    own_id = ExactCharField(max_length=USER_ID_COLUMN)
    session_id = ExactTextField()
    started_us = models.BigIntegerField()
    ends_us = models.BigIntegerField(db_index=True)

    class Meta:
        db_table = "paygent_session"
        constraints = [models.UniqueConstraint(fields=["user", "own_id"], name="paygent_session_own")]

    def __str__(self) -> str:
        return str(self.session_id)


class Job(models.Model):
    """A batch or background response whose usage comes later: whom it belongs to."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="jobs", db_index=False)
    user = models.ForeignKey(EndUser, models.CASCADE, related_name="jobs")
    provider = ExactCharField(max_length=64)
    job_id = ExactCharField(max_length=500)
    session_id = ExactTextField(null=True)
    model = ExactTextField(null=True)
    metadata = JsonTextField(null=True)

    class Meta:
        db_table = "paygent_job"
        constraints = [
            models.UniqueConstraint(fields=["project", "provider", "job_id"], name="paygent_job_id")
        ]

    def __str__(self) -> str:
        return str(self.job_id)


class JobAlias(models.Model):
    """Another name of a batch, such as that of its result file; it may be known before the batch."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="job_aliases", db_index=False)
    provider = ExactCharField(max_length=64)
    alias = ExactCharField(max_length=500)
    job_id = ExactCharField(max_length=500)

    class Meta:
        db_table = "paygent_jobalias"
        verbose_name_plural = "job aliases"
        constraints = [
            models.UniqueConstraint(fields=["project", "provider", "alias"], name="paygent_jobalias_alias")
        ]

    def __str__(self) -> str:
        return str(self.alias)
