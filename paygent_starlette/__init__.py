"""
Paygent for Starlette, FastAPI and every other ASGI app: who pays, and the 429 when the plan is spent.

::

    add_paygent(app, upgrade_url="/upgrade?from={plan}")

The options are those of :class:`~paygent.web.options.WebOptions`, the same under every framework.
"""

# ruff: noqa: E402  # the framework is asked for before anything imports it

from paygent.web.needs import require

require("starlette")

from paygent.web.request import RequestSlot, current_slot
from paygent.web.wording import Offer
from paygent_starlette._apps import add_paygent, me_endpoint, me_route, paygent_lifespan
from paygent_starlette._dashboard import dashboard
from paygent_starlette._middleware import PaygentMiddleware
from paygent_starlette._verbs import check_limits, exempt, paygent_user, require_budget, tag

__all__ = [
    "Offer",
    "PaygentMiddleware",
    "RequestSlot",
    "add_paygent",
    "check_limits",
    "current_slot",
    "dashboard",
    "exempt",
    "me_endpoint",
    "me_route",
    "paygent_lifespan",
    "paygent_user",
    "require_budget",
    "tag",
]
