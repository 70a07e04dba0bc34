"""Reading what the pages show, without ever holding up the calls of users."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

from paygent._forking import ProcessLock
from paygent.client import Paygent
from paygent.core.events import Event
from paygent.dashboard.standing import Standing, standings
from paygent.insight import DAY_US, DaySum, GateSum, Insight, InsightLedger, Spender
from paygent.ledger import GateRow, Ledger, LedgerError

T = TypeVar("T")

ANSWER_S = 5.0
PAST_KEPT_S = 300.0  # days gone by hardly change: a journal may still be recovered into them
TOP_KEPT_S = 30.0
_KEPT_MAX = 32
USERS_PER_PAGE = 50
TOP = 10
GATES_SHOWN = 12
GATES_OF_USER = 50
EVENTS_OF_USER = 25


def read(pg: Paygent, function: Callable[[Ledger], T]) -> T:
    """
    Let *function* ask the ledger; blocks.

    Beside the ledger thread where the store can do that: sums over many rows must not keep calls waiting.

    Raises:
        LedgerError: The ledger cannot be asked, or not in time.
    """
    exporter = pg._meter.exporter  # noqa: SLF001  # the engine behind the public object
    if isinstance(exporter.ledger, Insight):
        with closing(exporter.ledger.beside()) as ledger:
            return function(ledger)
    try:
        return exporter.call(function).result(ANSWER_S)
    except FutureTimeoutError as error:
        raise LedgerError(f"no answer within {ANSWER_S:g} s") from error


class Kept:
    """Answers that are good enough for a while, so that a page that is reloaded costs the store little."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = ProcessLock()
        self._found: dict[Hashable, tuple[float, Any]] = {}

    def get(self, key: Hashable, kept_s: float, ask: Callable[[], T]) -> T:
        """What *ask* returned for *key* in the last *kept_s* seconds, else what it returns now."""
        now_s = self._clock()
        with self._lock:
            known = self._found.get(key)
        if known is not None and now_s - known[0] < kept_s:
            answer: T = known[1]
            return answer
        answer = ask()
        with self._lock:
            if len(self._found) >= _KEPT_MAX:
                self._found.clear()
            self._found[key] = now_s, answer
        return answer


@dataclass(frozen=True, slots=True)
class Overview:
    """All users over some days; ``days`` are their numbers since the epoch, the last one is today."""

    days: range
    spent: list[DaySum]
    gates: list[GateSum]
    top: list[Spender]
    standing_of_top: list[Standing]
    newest_gates: list[GateRow]


@dataclass(frozen=True, slots=True)
class UsersPage:
    """One page of users by id; ``following`` is where the next one begins behind, ``None`` at the end."""

    users: list[Standing]
    following: str | None
    is_first: bool
    prefix: str


@dataclass(frozen=True, slots=True)
class UserPage:
    """One user over some days."""

    user: Standing
    is_known: bool
    days: range
    spent: list[DaySum] | None  # None: the store has no such sums
    gates: list[GateRow]
    events: list[Event]


@dataclass(frozen=True, slots=True)
class PlansPage:
    """The plans by name as JSON, and how many users each has, where the store can say so."""

    plans: dict[str, str]
    users: dict[str | None, int] | None


def overview(ledger: InsightLedger, days: range, kept: Kept) -> Overview:
    """What the first page shows."""
    since_us, until_us = days[0] * DAY_US, (days[-1] + 1) * DAY_US
    top = kept.get(("top", days), TOP_KEPT_S, lambda: ledger.top_users(since_us, until_us, TOP))
    return Overview(
        days=days,
        spent=_with_today(ledger.day_sums, "spent", days, kept),
        gates=_with_today(ledger.gate_sums, "gates", days, kept),
        top=top,
        standing_of_top=standings(ledger, [one.user_id for one in top]),
        newest_gates=ledger.gate_events(limit=GATES_SHOWN),
    )


def _with_today(ask: Callable[[int, int], list[T]], name: str, days: range, kept: Kept) -> list[T]:
    """Sums of days gone by as they were lately, and those of today as they are."""
    since_us, today_us = days[0] * DAY_US, days[-1] * DAY_US
    past = kept.get((name, days), PAST_KEPT_S, lambda: ask(since_us, today_us))
    return [*past, *ask(today_us, today_us + DAY_US)]


def users_page(ledger: InsightLedger, prefix: str, after: str | None) -> UsersPage:
    """The users whose ids begin with *prefix*, behind *after*."""
    found = ledger.users(prefix, after, USERS_PER_PAGE + 1)
    shown = found[:USERS_PER_PAGE]
    following = shown[-1] if len(found) > USERS_PER_PAGE else None
    return UsersPage(standings(ledger, shown), following, after is None, prefix)


def user_page(ledger: Ledger, user_id: str, days: range) -> UserPage:
    """What is known of one user; also of one who was never seen."""
    (user,) = standings(ledger, [user_id])
    gates = ledger.gate_events(user_id, limit=GATES_OF_USER)
    events = ledger.events(user_id, limit=EVENTS_OF_USER)
    spent, is_known = None, bool(gates or events or user.spend.used)
    if isinstance(ledger, Insight):
        spent = ledger.day_sums(days[0] * DAY_US, (days[-1] + 1) * DAY_US, user_id)
        is_known = is_known or ledger.users(user_id, None, 1) == [user_id]
    return UserPage(user, is_known, days, spent, gates, events)


def plans_page(ledger: Ledger) -> PlansPage:
    """The registered plans."""
    return PlansPage(ledger.plans(), ledger.users_by_plan() if isinstance(ledger, Insight) else None)
