"""
Paygent for Flask: who pays for the calls of a request, and the 429 when the plan is spent.

::

    paygent = Paygent(app, upgrade_url="/upgrade?from={plan}")
"""

# ruff: noqa: E402  # the framework is asked for before anything imports it

from paygent.web.needs import require

require("flask")

from paygent.web.wording import Offer
from paygent_flask._dashboard import dashboard
from paygent_flask._extension import Paygent
from paygent_flask._verbs import exempt, require_budget, tag

__all__ = ["Offer", "Paygent", "dashboard", "exempt", "require_budget", "tag"]
