import pytest

from paygent.ledgers.redis import RedisLedger
from paygent.testing.contract import LedgerContract


class RedisCase(LedgerContract):
    @pytest.fixture
    def url(self, redis_url):
        return redis_url

    @pytest.fixture
    def make_ledger(self, url):
        made = []

        def make(now_us):
            made.append(RedisLedger(url, now_us))
            return made[-1]

        yield make
        for ledger in made:
            ledger.close()


class TestRedisLedger(RedisCase):
    """On a server of its own."""


class TestClusteredRedisLedger(RedisCase):
    """On the node of a cluster, which refuses transactions over several slots."""

    @pytest.fixture
    def url(self, clustered_redis_server):
        return clustered_redis_server.url
