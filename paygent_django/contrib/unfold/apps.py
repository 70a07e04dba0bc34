"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig


class PaygentUnfoldConfig(AppConfig):
    """The same pages, on unfold's own classes and templates; no tables of its own."""

    name = "paygent_django.contrib.unfold"
    label = "paygent_unfold"
    verbose_name = "Paygent for unfold"
