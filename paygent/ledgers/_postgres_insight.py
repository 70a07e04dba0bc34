"""What admin views ask of a PostgreSQL ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from paygent.insight import DAY_US, DaySum, GateSum, Spender, key_range
from paygent.ledgers._postgres_rows import got, put

_COST = "cost_tokens_nusd + cost_tools_nusd"
_DAYS = (
    f"SELECT timestamp_us / {DAY_US} AS day, model, count(*), sum(input_tokens + output_tokens), "  # noqa: S608  # constants
    f"sum({_COST}), coalesce(sum({_COST}) FILTER (WHERE estimated <> 0), 0) FROM paygent.events "
    'WHERE {where} GROUP BY 1, 2 ORDER BY 1, model COLLATE "C" NULLS FIRST'
)
_GATES = (
    f"SELECT timestamp_us / {DAY_US} AS day, gate_reason, "  # noqa: S608  # constants
    "coalesce(sum(count) FILTER (WHERE blocked <> 0), 0), "
    "coalesce(sum(count) FILTER (WHERE blocked = 0), 0) FROM paygent.gate_events "
    'WHERE {where} GROUP BY 1, 2 ORDER BY 1, gate_reason COLLATE "C" NULLS FIRST'
)
_TOP = (
    f"SELECT user_id, count(*), sum({_COST}) FROM paygent.events "  # noqa: S608  # constants
    "WHERE timestamp_us >= %s AND timestamp_us < %s GROUP BY user_id ORDER BY 3 DESC, 1 LIMIT %s"
)


class PostgresInsight:
    """Sums over the tables of a :class:`~paygent.ledgers.postgres.PostgresLedger`, which inherits this."""

    _query: Callable[..., list[tuple[Any, ...]]]

    def users(self, prefix: str = "", after: str | None = None, limit: int = 50) -> list[str]:
        bounds = key_range(prefix, after)
        where = " AND ".join(f"user_id {sign} %s" for sign, _ in bounds)
        sql = f"SELECT user_id FROM paygent.accounts WHERE {where} ORDER BY user_id LIMIT %s"  # noqa: S608
        values = (put(text) for _, text in bounds)
        return [got(user_id) for (user_id,) in self._query(sql, *values, limit)]

    def users_by_plan(self) -> dict[str | None, int]:
        rows = self._query("SELECT plan, count(*) FROM paygent.accounts GROUP BY plan")
        return {None if plan is None else got(plan): count for plan, count in rows}

    def day_sums(self, since_us: int, until_us: int, user_id: str | None = None) -> list[DaySum]:
        sql, values = _asked(_DAYS, since_us, until_us, user_id)
        return [DaySum._make(_plain(row)) for row in self._query(sql, *values)]

    def gate_sums(self, since_us: int, until_us: int, user_id: str | None = None) -> list[GateSum]:
        sql, values = _asked(_GATES, since_us, until_us, user_id)
        return [GateSum._make(_plain(row)) for row in self._query(sql, *values)]

    def top_users(self, since_us: int, until_us: int, limit: int = 10) -> list[Spender]:
        return [Spender._make(_plain(row)) for row in self._query(_TOP, since_us, until_us, limit)]


def _asked(sql: str, since_us: int, until_us: int, user_id: str | None) -> tuple[str, list[Any]]:
    where, values = "timestamp_us >= %s AND timestamp_us < %s", [since_us, until_us]
    if user_id is None:
        return sql.format(where=where), values
    return sql.format(where=f"user_id = %s AND {where}"), [put(user_id), *values]


def _plain(row: Iterable[Any]) -> list[Any]:
    """Sums of integers come as decimals."""
    return [got(value) if isinstance(value, str) else None if value is None else int(value) for value in row]
