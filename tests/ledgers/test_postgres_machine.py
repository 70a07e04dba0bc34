import pytest

from paygent.ledgers.postgres import PostgresLedger
from paygent.testing._contract_machine import WalksContract


class TestPostgresWalks(WalksContract):
    walks = 25

    @pytest.fixture
    def make_ledger(self, postgres_url):
        made = []

        def make(now_us):
            made.append(PostgresLedger(postgres_url, now_us))
            return made[-1]

        yield make
        for ledger in made:
            ledger.close()
