"""Budget on top of a plan."""

from __future__ import annotations

import uuid

from paygent.core.windows import billing_period
from paygent_django.models import EndUser, Grant
from paygent_django.services._base import ServiceError, locked, rows

GRANT_MAX_NUSD = 10**9 * 10**8  # a hundred million dollars: far beyond any, and sums still fit


def grant(
    user: EndUser, amount_nusd: int, *, key: str | None = None, reason: str = "", by: str = ""
) -> Grant:
    """
    Raise the user's limit by *amount_nusd* for his running period; his next call is judged by it.

    The same *key* grants once, also in two requests at the same moment.

    Raises:
        ServiceError: The amount is not above zero, or absurdly large.
    """
    if (
        isinstance(amount_nusd, bool)
        or not isinstance(amount_nusd, int)
        or not 0 < amount_nusd <= GRANT_MAX_NUSD
    ):
        raise ServiceError("amount_nusd", "must be a whole number of nano-dollars above zero")
    name = (key or str(uuid.uuid4()))[:200]
    with locked(user) as (accounts, account):
        before: Grant | None = rows(Grant).filter(user=user, key=name).first()
        if before is not None:
            return before
        window = billing_period(account.period, accounts.now_us).key
        made: Grant = rows(Grant).create(
            user=user, key=name, window=window, amount_nusd=amount_nusd, reason=reason[:500],
            created_by=by[:200], created_us=accounts.now_us,
        )  # fmt: skip
        row = rows(EndUser).get(pk=user.pk)
        user.grant_nusd = amount_nusd + (row.grant_nusd if row.grant_window == window else 0)
        user.grant_window = window
        rows(EndUser).filter(pk=user.pk).update(grant_nusd=user.grant_nusd, grant_window=window)
    return made
