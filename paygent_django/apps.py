"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig


class PaygentConfig(AppConfig):
    """Plans, users, usage and the audit trail in the project's own database."""

    name = "paygent_django"
    verbose_name = "Paygent"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Connect what listens to the project."""
        from paygent_django import checks  # noqa: F401  # importing them registers them
        from paygent_django.models import links

        links.connect()
