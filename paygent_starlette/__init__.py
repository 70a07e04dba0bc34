"""
Paygent for Starlette, FastAPI and every other ASGI app: who pays, and the 429 when the plan is spent.

::

    app.add_middleware(PaygentMiddleware, upgrade_url="/upgrade?from={plan}")
"""

from paygent.web.limit_response import Offer
from paygent_starlette._middleware import PaygentMiddleware

__all__ = ["Offer", "PaygentMiddleware"]
