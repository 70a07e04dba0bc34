"""Leases and totals as they stand in their columns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from paygent.ledger import Bucket
from paygent.ledgers._rows import LeaseRow
from paygent_django.ledger._sql import json_text
from paygent_django.models.fields import escape, unescape

LEASE_COLUMNS = ("lease_id", "seq", "expires_us", "amounts", "denied", "busy")


def to_totals(rows: Sequence[Sequence[Any]]) -> dict[Bucket, int]:
    """Rows of scope, window and amount by bucket."""
    return {(unescape(scope), unescape(window)): amount for scope, window, amount in rows}


def to_lease(row: Sequence[Any]) -> LeaseRow:
    """A lease from ``LEASE_COLUMNS``."""
    lease_id, seq, expires_us, amounts, denied, busy = row
    by_bucket = {(scope, window): amount for scope, window, amount in json.loads(amounts)}
    denied = None if denied is None else unescape(denied)
    return LeaseRow(unescape(lease_id), seq, expires_us, by_bucket, denied, bool(busy))


def lease_values(row: LeaseRow) -> tuple[Any, ...]:
    """A lease as ``LEASE_COLUMNS``."""
    amounts = json_text([(scope, window, amount) for (scope, window), amount in row.amounts.items()])
    denied = None if row.denied is None else escape(row.denied)
    return escape(row.lease_id), row.seq, row.expires_us, amounts, denied, bool(row.busy)
