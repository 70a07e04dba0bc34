"""What admin views ask of a ledger in memory."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from paygent.core.events import Event
from paygent.insight import DAY_US, DaySum, GateSum, Spender
from paygent.ledger import Account, Bucket, GateRow


class MemoryInsight:
    """Sums over the dictionaries of a :class:`~paygent.ledgers.memory.MemoryLedger`, which inherits this."""

    _lock: threading.RLock
    _accounts: dict[str, Account]
    _events: dict[str, Event]
    _totals: dict[str, dict[Bucket, int]]
    _gates: dict[str, GateRow]

    def users(self, prefix: str = "", after: str | None = None, limit: int = 50) -> list[str]:
        with self._lock:
            known = self._accounts.keys() | self._totals.keys()
        wanted = (name for name in known if name.startswith(prefix) and (after is None or name > after))
        return sorted(wanted)[:limit]

    def users_by_plan(self) -> dict[str | None, int]:
        with self._lock:
            return dict(Counter(account.plan for account in self._accounts.values()))

    def day_sums(self, since_us: int, until_us: int, user_id: str | None = None) -> list[DaySum]:
        groups: dict[tuple[int, str | None], list[Event]] = defaultdict(list)
        for event in self._within(since_us, until_us):
            if user_id in (None, event.user_id):
                groups[event.timestamp_us // DAY_US, event.model].append(event)
        sums = (_day_sum(day, model, events) for (day, model), events in groups.items())
        return sorted(sums, key=lambda one: (one.day, one.model or ""))

    def gate_sums(self, since_us: int, until_us: int, user_id: str | None = None) -> list[GateSum]:
        with self._lock:
            rows = [row for row in self._gates.values() if since_us <= row.timestamp_us < until_us]
        groups: dict[tuple[int, str | None], list[GateRow]] = defaultdict(list)
        for row in rows:
            if user_id in (None, row.user_id):
                groups[row.timestamp_us // DAY_US, row.gate_reason].append(row)
        sums = (_gate_sum(day, reason, rows) for (day, reason), rows in groups.items())
        return sorted(sums, key=lambda one: (one.day, one.gate_reason or ""))

    def top_users(self, since_us: int, until_us: int, limit: int = 10) -> list[Spender]:
        calls: Counter[str] = Counter()
        costs: Counter[str] = Counter()
        for event in self._within(since_us, until_us):
            calls[event.user_id] += 1
            costs[event.user_id] += event.cost_nusd
        found = (Spender(user_id, calls[user_id], cost) for user_id, cost in costs.items())
        return sorted(found, key=lambda one: (-one.cost_nusd, one.user_id))[:limit]

    def _within(self, since_us: int, until_us: int) -> Iterator[Event]:
        with self._lock:
            events = tuple(self._events.values())
        return (event for event in events if since_us <= event.timestamp_us < until_us)


def _day_sum(day: int, model: str | None, events: Iterable[Event]) -> DaySum:
    rows = [(one.total_tokens, one.cost_nusd, one.cost_nusd if one.estimated else 0) for one in events]
    tokens, cost_nusd, estimated_nusd = (sum(column) for column in zip(*rows, strict=True))
    return DaySum(day, model, len(rows), tokens, cost_nusd, estimated_nusd)


def _gate_sum(day: int, reason: str | None, rows: Iterable[GateRow]) -> GateSum:
    counts = {True: 0, False: 0}
    for row in rows:
        counts[bool(row.blocked)] += row.count
    return GateSum(day, reason, counts[True], counts[False])
