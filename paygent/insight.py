"""
What admin views ask of a store over many users, beyond the ledger port.

The answers may take seconds on a large store, so they are never asked for on the ledger thread, where calls
wait to be admitted: ``beside()`` gives a handle of one's own. A store that cannot answer them cheaply leaves
them out, and the views say so.
"""

from __future__ import annotations

import sys
from typing import NamedTuple, Protocol, runtime_checkable

from paygent.ledger import Ledger

DAY_US = 86_400_000_000


class DaySum(NamedTuple):
    """
    What was metered of one model on one day.

    ``day`` counts days since the epoch, in UTC. ``estimated_nusd`` is the part of ``cost_nusd`` that no
    provider has reported.
    """

    day: int
    model: str | None
    calls: int
    tokens: int
    cost_nusd: int
    estimated_nusd: int


class GateSum(NamedTuple):
    """The calls of one day that met one gate: how many were refused, and how many passed with a warning."""

    day: int
    gate_reason: str | None
    blocked: int
    warned: int


class Spender(NamedTuple):
    """What one user has spent."""

    user_id: str
    calls: int
    cost_nusd: int


@runtime_checkable
class Insight(Protocol):
    """
    Questions over all users; every method blocks, and raises ``LedgerError`` like the port's.

    Stretches of time are in microseconds since the epoch, without their end.
    """

    def beside(self) -> InsightLedger:
        """Another handle on the same store, for any thread; close it after use."""

    def users(self, prefix: str = "", after: str | None = None, limit: int = 50) -> list[str]:
        """The ids that begin with *prefix* and come behind *after*, by code points."""

    def users_by_plan(self) -> dict[str | None, int]:
        """How many users each plan was assigned to; ``None``: those without an assigned one."""

    def day_sums(self, since_us: int, until_us: int, user_id: str | None = None) -> list[DaySum]:
        """What was metered by day and model, of one user or of all, in the order of days."""

    def gate_sums(self, since_us: int, until_us: int, user_id: str | None = None) -> list[GateSum]:
        """The decisions other than *ok* by day and reason, in the order of days."""

    def top_users(self, since_us: int, until_us: int, limit: int = 10) -> list[Spender]:
        """Who has spent most, the most first."""


class InsightLedger(Ledger, Insight, Protocol):
    """A ledger that answers such questions."""


def key_range(prefix: str, after: str | None) -> list[tuple[str, str]]:
    """What holds for ids that begin with *prefix* and come behind *after*: operators and texts."""
    from_there = (">=", prefix) if after is None or after < prefix else (">", after)
    end = after_prefix(prefix)
    return [from_there] if end is None else [from_there, ("<", end)]


def after_prefix(prefix: str) -> str | None:
    """
    The first text, by code points, behind all that begin with *prefix*; ``None``: there is none.

    So a store finds a prefix by a range of its index, without knowing any pattern.
    """
    kept = prefix.rstrip(chr(sys.maxunicode))
    if not kept:
        return None
    following = ord(kept[-1]) + 1
    if 0xD800 <= following <= 0xDFFF:  # no text holds a surrogate
        following = 0xE000
    return kept[:-1] + chr(following)
