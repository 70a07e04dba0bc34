"""
Telling a project's own addresses what happened: soft gate, hard gate, blocked, and shares of a limit used up.

What is told is decided once per user, period and limit, by a unique row in the database, however many
processes meter. Deliveries are signed, retried with growing pauses, and go to public addresses only.
"""

from paygent.wire.signing import sign, verify
from paygent_django.webhooks.endpoints import EVENTS, change_endpoint, create_endpoint, send_test
from paygent_django.webhooks.noticing import notice, tell
from paygent_django.webhooks.worker import count_due, deliver_due, start, stop

__all__ = [
    "EVENTS", "change_endpoint", "count_due", "create_endpoint", "deliver_due", "notice",
    "send_test", "sign", "start", "stop", "tell", "verify",
]  # fmt: skip
