"""The link from a project's own users to Paygent's, which no database constraint guards."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.db.models.signals import post_delete


def connect() -> None:
    """Have deleted users of the project unlinked; their usage stays."""
    try:
        users = get_user_model()
    except ImproperlyConfigured:  # a project without users of its own: tokens of another service, say
        return
    post_delete.connect(_unlink, sender=users, dispatch_uid="paygent_django.unlink")


def _unlink(instance: Any, **_: Any) -> None:
    from paygent_django.database import database_alias
    from paygent_django.models import EndUser

    linked = EndUser.objects.using(database_alias())
    linked.filter(auth_user_id=str(instance.pk)).update(auth_user_id=None)
