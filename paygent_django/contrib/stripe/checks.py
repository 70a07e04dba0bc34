"""
System checks.

| id | what is wrong |
|---|---|
| ``paygent_stripe.E001`` | there is no ``STRIPE_WEBHOOK_SECRET``: every event is answered 503 |
| ``paygent_stripe.E002`` | the ``stripe`` package is not installed |
"""

from __future__ import annotations

import importlib.util
from typing import Any

from django.core.checks import CheckMessage, Error, Tags, register

from paygent_django.contrib.stripe import conf


def connect() -> None:
    """Have Django run them."""
    register(check_settings, Tags.security)


def check_settings(**_: Any) -> list[CheckMessage]:
    """Check that events can be verified."""
    found: list[CheckMessage] = []
    if not conf.secrets():
        hint = "Set it to the signing secret of the endpoint, whsec_…, from the environment."
        found.append(Error("PAYGENT has no STRIPE_WEBHOOK_SECRET.", hint=hint, id="paygent_stripe.E001"))
    if importlib.util.find_spec("stripe") is None:
        hint = "pip install 'paygent[stripe]'"
        found.append(Error("The stripe package is not installed.", hint=hint, id="paygent_stripe.E002"))
    return found
