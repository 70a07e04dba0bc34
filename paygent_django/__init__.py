"""
Paygent for Django: who pays for the calls of a request, and the 429 when the plan is spent.

::

    INSTALLED_APPS = [..., "paygent_django"]
    MIDDLEWARE = [..., "paygent_django.middleware.PaygentMiddleware"]  # after AuthenticationMiddleware
    PAYGENT = {"UPGRADE_URL": "/upgrade?from={plan}"}
"""

# ruff: noqa: E402  # the framework is asked for before anything imports it

from paygent.web.needs import require

require("django")

from paygent.web.wording import Offer
from paygent_django.decorators import exempt, require_budget, tag

__all__ = ["Offer", "exempt", "require_budget", "tag"]
