"""What admin views ask of a SQLite ledger."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from paygent.insight import DAY_US, DaySum, GateSum, Spender, key_range

_COST = "cost_tokens_nusd + cost_tools_nusd"
# Whoever was only ever posted for (a recovered journal) has totals and no account.
_USERS = (
    "SELECT * FROM (SELECT user_id FROM accounts WHERE {range} ORDER BY user_id LIMIT ?) UNION "
    "SELECT * FROM (SELECT DISTINCT user_id FROM totals WHERE {range} ORDER BY user_id LIMIT ?) "
    "ORDER BY user_id LIMIT ?"
)
_DAYS = (
    f"SELECT timestamp_us / {DAY_US}, model, count(*), sum(input_tokens + output_tokens), sum({_COST}), "  # noqa: S608  # constants
    f"sum(CASE WHEN estimated THEN {_COST} ELSE 0 END) FROM events WHERE {{where}} "
    "GROUP BY 1, 2 ORDER BY 1, 2"
)
_GATES = (
    f"SELECT timestamp_us / {DAY_US}, gate_reason, sum(CASE WHEN blocked THEN count ELSE 0 END), "  # noqa: S608  # constants
    "sum(CASE WHEN blocked THEN 0 ELSE count END) FROM gate_events WHERE {where} GROUP BY 1, 2 ORDER BY 1, 2"
)
_TOP = (
    f"SELECT user_id, count(*), sum({_COST}) FROM events WHERE timestamp_us >= ? AND timestamp_us < ? "  # noqa: S608  # constants
    "GROUP BY user_id ORDER BY 3 DESC, 1 LIMIT ?"
)


class SqliteInsight:
    """Sums over the tables of a :class:`~paygent.ledgers.sqlite.SqliteLedger`, which inherits this."""

    _query: Callable[..., list[tuple[Any, ...]]]

    def users(self, prefix: str = "", after: str | None = None, limit: int = 50) -> list[str]:
        bounds = key_range(prefix, after)
        half = (*(text for _, text in bounds), limit)
        sql = _USERS.format(range=" AND ".join(f"user_id {sign} ?" for sign, _ in bounds))
        return [user_id for (user_id,) in self._query(sql, (*half, *half, limit))]

    def users_by_plan(self) -> dict[str | None, int]:
        return dict(self._query("SELECT plan, count(*) FROM accounts GROUP BY plan"))

    def day_sums(self, since_us: int, until_us: int, user_id: str | None = None) -> list[DaySum]:
        return list(map(DaySum._make, self._query(*_asked(_DAYS, since_us, until_us, user_id))))

    def gate_sums(self, since_us: int, until_us: int, user_id: str | None = None) -> list[GateSum]:
        return list(map(GateSum._make, self._query(*_asked(_GATES, since_us, until_us, user_id))))

    def top_users(self, since_us: int, until_us: int, limit: int = 10) -> list[Spender]:
        return list(map(Spender._make, self._query(_TOP, (since_us, until_us, limit))))


def _asked(sql: str, since_us: int, until_us: int, user_id: str | None) -> tuple[str, tuple[Any, ...]]:
    where, values = "timestamp_us >= ? AND timestamp_us < ?", (since_us, until_us)
    if user_id is None:
        return sql.format(where=where), values
    return sql.format(where=f"user_id = ? AND {where}"), (user_id, *values)
