import pytest

from paygent.ledgers.redis import RedisLedger
from paygent.testing._contract_machine import WalksContract


class TestRedisWalks(WalksContract):
    walks = 60

    @pytest.fixture
    def make_ledger(self, redis_url):
        made = []

        def make(now_us):
            made.append(RedisLedger(redis_url, now_us))
            return made[-1]

        yield make
        for ledger in made:
            ledger.close()
