"""Which database holds Paygent's tables."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS


def database_alias() -> str:
    """``PAYGENT["DATABASE"]``, else the default database."""
    given: dict[str, Any] = getattr(settings, "PAYGENT", None) or {}
    return str(given.get("DATABASE") or DEFAULT_DB_ALIAS)


class PaygentRouter:
    """
    Keeps Paygent's tables in ``PAYGENT["DATABASE"]``, and everything else out of a database of its own.

    Add ``"paygent_django.database.PaygentRouter"`` to ``DATABASE_ROUTERS``. Not needed where Paygent shares
    the default database.
    """

    def db_for_read(self, model: type[Any], **_: Any) -> str | None:
        """Paygent's rows come from its database."""
        return database_alias() if model._meta.app_label == "paygent_django" else None

    def db_for_write(self, model: type[Any], **_: Any) -> str | None:
        """Paygent's rows go to its database."""
        return database_alias() if model._meta.app_label == "paygent_django" else None

    def allow_relation(self, one: Any, other: Any, **_: Any) -> bool | None:
        """The link from a Paygent user to a project's user may cross databases: no constraint guards it."""
        labels = {one._meta.app_label, other._meta.app_label}
        return True if "paygent_django" in labels else None

    def allow_migrate(self, db: str, app_label: str, **_: Any) -> bool | None:
        """Paygent's tables are made in its database alone."""
        return db == database_alias() if app_label == "paygent_django" else None
