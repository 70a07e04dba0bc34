"""The Django app."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.apps import AppConfig

if TYPE_CHECKING:
    from paygent_django.ledger.watching import Watcher


class PaygentConfig(AppConfig):
    """Plans, users, usage and the audit trail in the project's own database."""

    name = "paygent_django"
    verbose_name = "Paygent"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Connect what listens to the project."""
        from paygent_django import checks  # noqa: F401  # importing them registers them
        from paygent_django.ledger.watching import watch_with
        from paygent_django.models import links

        links.connect()
        watch_with(_watcher)


def _watcher() -> Watcher:
    """What hears of an embedded app's ledger; loaded with the first one."""
    from paygent_django.webhooks.embedded import Embedded

    return Embedded()
