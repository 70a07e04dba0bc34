"""A fresh session for a user whose running one is spent."""

from __future__ import annotations

import uuid

from paygent.ledger import LeaseRequest
from paygent.ledger import Session as LedgerSession
from paygent_django.models import EndUser, Session
from paygent_django.services import ledger_of
from paygent_django.services._base import locked, rows


def open_session(user: EndUser) -> LedgerSession | None:
    """
    End the running default session and begin a new one, in which nothing is spent.

    Sessions that the app itself names stay as they are.
    """
    with locked(user):
        rows(Session).filter(user=user, own_id="").delete()
    asked = LeaseRequest(user.external_user_id, f"admin-{uuid.uuid4()}", 1, begin_session=True)
    return ledger_of(user.project).lease([asked])[0].session
