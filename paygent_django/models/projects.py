"""Tenants and their keys."""

from __future__ import annotations

import uuid

from django.db import models

from paygent.core.windows import from_us
from paygent_django.models.fields import ExactCharField, JsonTextField
from paygent_django.models.moments import now_us


class Project(models.Model):
    """
    A tenant: its plans, users and events are its own.

    An embedded app has one, named ``default``. ``default_plan`` is the plan of users without a subscription;
    without one it is the plan named ``default``.
    """

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    name = ExactCharField(max_length=200, unique=True)
    default_plan = models.ForeignKey(
        "paygent_django.Plan", models.SET_NULL, null=True, blank=True, related_name="+"
    )
    settings = JsonTextField(default=dict, blank=True)
    created_us = models.BigIntegerField(default=now_us, editable=False)
    # Events before this moment were pruned: roll-ups from before it can no longer be compared with them.
    pruned_before_us = models.BigIntegerField(default=0, editable=False)

    class Meta:
        db_table = "paygent_project"

    def __str__(self) -> str:
        return str(self.name)


class ApiKey(models.Model):
    """
    A key of a project, shown once when it is made; only its hash is kept.

    ``lookup`` is the beginning of the key, by which its row is found; ``digest`` is the SHA-256 of the whole
    key: 256 random bits need no slow hash.
    """

    project = models.ForeignKey(Project, models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=200, blank=True)
    lookup = models.CharField(max_length=32, unique=True, editable=False)
    digest = models.CharField(max_length=64, editable=False)
    is_live = models.BooleanField(default=True)
    can_read = models.BooleanField(default=True)
    can_ingest = models.BooleanField(default=True)
    can_admin = models.BooleanField(default=False)
    created_us = models.BigIntegerField(default=now_us, editable=False)
    last_used_us = models.BigIntegerField(null=True, blank=True, editable=False)
    revoked_us = models.BigIntegerField(null=True, blank=True, editable=False)

    class Meta:
        db_table = "paygent_apikey"
        verbose_name = "API key"

    def __str__(self) -> str:
        created = from_us(self.created_us).date().isoformat()
        return f"{self.name or 'key'} ({self.lookup}…, {created})"

    @property
    def is_revoked(self) -> bool:
        """Whether the key no longer opens anything."""
        return self.revoked_us is not None

    @property
    def scopes(self) -> tuple[str, ...]:
        """What the key may do, of ``read``, ``ingest`` and ``admin``."""
        held = {"read": self.can_read, "ingest": self.can_ingest, "admin": self.can_admin}
        return tuple(scope for scope, may in held.items() if may)
