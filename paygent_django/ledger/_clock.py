"""The ledger's clock."""

from __future__ import annotations

import time

from paygent_django.ledger._sql import Sql


def clock_us(sql: Sql) -> int:
    """Microseconds by the database's clock, which all machines share; on SQLite the machine's."""
    if sql.vendor == "postgresql":
        row = sql.row("SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint")
    elif sql.vendor == "mysql":
        row = sql.row("SELECT CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED)")
    else:
        return time.time_ns() // 1000
    assert row is not None
    return int(row[0])
