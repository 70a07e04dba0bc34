"""Small translations between rows and JSON."""

from __future__ import annotations

from typing import Any

from paygent.core.plan import NUSD_PER_USD
from paygent.core.windows import from_us


def without_none(value: Any) -> Any:
    """*value* without the members of objects, however deep, that are ``None``."""
    if isinstance(value, dict):
        return {name: without_none(member) for name, member in value.items() if member is not None}
    return value


def iso(moment_us: int | None) -> str | None:
    """A moment as ISO 8601 in UTC."""
    return None if moment_us is None else from_us(moment_us).isoformat()


def usd(amount_nusd: int) -> float:
    """Nano-dollars as dollars."""
    return amount_nusd / NUSD_PER_USD
