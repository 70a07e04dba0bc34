"""Translated words, as the plain text that they are."""

from __future__ import annotations

from django.utils.translation import gettext


def _(text: str) -> str:
    """*text* in the language of the request."""
    return str(gettext(text))
