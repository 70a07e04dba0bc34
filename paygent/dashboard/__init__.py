"""
Admin views for apps without Django: what is spent, by whom, on which plan, and who was refused.

``paygent_starlette.dashboard`` and ``paygent_flask.dashboard`` mount them. They only ever read; nobody sees
them unless the app's own ``authorize`` says ``True``.
"""

from paygent.dashboard.board import Authorize, Dashboard

__all__ = ["Authorize", "Dashboard"]
