import pytest
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
    "postgres_server",
    "postgres_url",
    "redis_server",
    "redis_url",
]
