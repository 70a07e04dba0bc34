import pytest

from paygent.ledgers.sqlite import SqliteLedger
from paygent.testing._contract_machine import WalksContract


class TestSqliteWalks(WalksContract):
    walks = 150

    @pytest.fixture
    def make_ledger(self, tmp_path):
        made = []

        def make(now_us):
            made.append(SqliteLedger(tmp_path / "p.db", now_us))
            return made[-1]

        yield make
        for ledger in made:
            ledger.close()
