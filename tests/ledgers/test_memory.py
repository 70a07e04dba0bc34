import pytest

from paygent.ledgers.memory import MemoryLedger
from paygent.testing.contract import LedgerContract


class TestMemoryLedger(LedgerContract):
    @pytest.fixture
    def make_ledger(self):
        made = []

        def make(now_us):
            made.append(made[0] if made else MemoryLedger(now_us))
            return made[0]

        return make
