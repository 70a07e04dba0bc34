import pytest
from ledger_waits import ledger_waits
from real_servers import (
    clustered_redis_server,
    durable_redis_server,
    postgres_server,
    postgres_url,
    redis_server,
    redis_url,
)

pytest.register_assert_rewrite("fleet")

__all__ = [
    "clustered_redis_server",
    "durable_redis_server",
    "ledger_waits",
    "postgres_server",
    "postgres_url",
    "redis_server",
    "redis_url",
]
