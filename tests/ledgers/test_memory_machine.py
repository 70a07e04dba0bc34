import pytest

from paygent.ledgers.memory import MemoryLedger
from paygent.testing._contract_machine import WalksContract


class TestMemoryWalks(WalksContract):
    @pytest.fixture
    def make_ledger(self):
        return MemoryLedger
