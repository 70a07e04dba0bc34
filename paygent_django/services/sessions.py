"""The session in which a user's calls count."""

from __future__ import annotations

import uuid

from paygent.ledger import LeaseRequest
from paygent.ledger import Session as LedgerSession
from paygent_django.models import EndUser, Session
from paygent_django.services._base import ledger_of, locked, rows


def open_session(user: EndUser) -> LedgerSession | None:
    """
    End the user's running default session and begin a new one, in which nothing is spent.

    Sessions that the app itself names stay as they are. Call it outside of ``ATOMIC_REQUESTS``.
    """
    with locked(user):
        rows(Session).filter(user=user, own_id="").delete()
    asked = LeaseRequest(user.external_user_id, f"opened-{uuid.uuid4()}", 1, begin_session=True)
    return ledger_of(user.project).lease([asked])[0].session
