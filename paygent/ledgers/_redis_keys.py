"""
The keys of the Redis ledger, and how values stand in them.

All that is known of one user lives under keys with the same hash tag, so that a cluster keeps it on one node
and one transaction can change it. What spans users has keys of its own, touched one at a time:

    paygent:{u:ada}:v        number of changes; what transactions watch
    paygent:{u:ada}:q        who was overtaken and goes first now, for 100 ms
    paygent:{u:ada}:a        the account, as JSON
    paygent:{u:ada}:l        leases by id, as JSON
    paygent:{u:ada}:s:<own>  a session, until a day after its end
    paygent:{u:ada}:t:<win>  totals of one window by scope
    paygent:{u:ada}:w        the names of the windows
    paygent:{u:ada}:i        ids of events by arrival, for 35 days
    paygent:{u:ada}:e        events by time, for 35 days
    paygent:{u:ada}:g        decisions by id, for 35 days
    paygent:{u:ada}:gt, :ga  their ids by time, and by arrival
    paygent:plans            plans by name
    paygent:users, :gated    users by their latest event or decision
    paygent:lease:<id>       users by when that process last asked for them
    paygent:job:…, :alias:…  batches
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from paygent.ledger import Account, PlanRow
from paygent.ledgers._rows import LeaseRow, SessionRow
from paygent.ledgers._values import amounts_from, amounts_to

PLANS = "paygent:plans"
USERS = "paygent:users"
GATED = "paygent:gated"

DAY_S = 86_400
EVENTS_KEPT_S = 35 * DAY_S
LEASES_KEPT_S = 600  # ten times what a lease lives
TOTALS_OF_SESSION_KEPT_S = 400 * DAY_S  # longer than any session


@lru_cache(maxsize=10_000)
def _family(user_id: str) -> str:
    # Quoted: a tag ends at the first closing brace.
    return "paygent:{u:" + quote(user_id, safe="@.-_") + "}:"


def key(user_id: str, part: str, name: str | None = None) -> str:
    """The key of one part of what is known of a user."""
    whole = _family(user_id) + part
    return whole if name is None else f"{whole}:{quote(name, safe='')}"


def lease_key(lease_id: str) -> str:
    """Where the users of one process's lease are listed."""
    return f"paygent:lease:{quote(lease_id, safe='')}"


def job_key(kind: str, provider: str, name: str) -> str:
    """The key of a batch (``job``) or of another name of it (``alias``)."""
    return f"paygent:{kind}:{quote(provider, safe='')}:{quote(name, safe='')}"


def account_to(account: Account) -> str:
    return json.dumps(account[1:])


def account_from(user_id: str, text: bytes | None) -> Account | None:
    if text is None:
        return None
    plan, own_config, period, *rest = json.loads(text)
    return Account(user_id, plan, own_config, None if period is None else tuple(period), *rest)


def plan_to(key: str, config: str) -> str:
    return json.dumps([key, config])


def plan_from(name: str, text: bytes | None) -> PlanRow | None:
    return None if text is None else PlanRow(name, *json.loads(text))


def session_to(session: SessionRow) -> str:
    return json.dumps(session)


def session_from(text: bytes | None) -> SessionRow | None:
    return None if text is None else SessionRow(*json.loads(text))


def lease_to(row: LeaseRow) -> str:
    return json.dumps([row.seq, row.expires_us, amounts_to(row.amounts), row.denied, row.busy])


def lease_from(lease_id: str, text: bytes) -> LeaseRow:
    seq, expires_us, amounts, denied, busy = json.loads(text)
    return LeaseRow(lease_id, seq, expires_us, amounts_from(amounts), denied, busy)


def totals_from(pairs: list[bytes]) -> dict[str, int]:
    """The answer to HGETALL."""
    return {scope.decode(): int(amount) for scope, amount in pairs_of(pairs)}


def pairs_of(flat: list[Any]) -> list[tuple[Any, Any]]:
    """A flat answer of names and values as pairs."""
    return list(zip(flat[::2], flat[1::2], strict=True))
