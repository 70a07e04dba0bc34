"""
The contract that every ledger keeps, as a pytest class.

Subclass it and say how a ledger object is made; several of them must share one store that is empty at the
start of each test::

    class TestMyLedger(LedgerContract):
        @pytest.fixture
        def make_ledger(self, tmp_path):
            return lambda now_us: MyLedger(tmp_path / "ledger", now_us)
"""

from __future__ import annotations

from paygent.testing._contract_events import EventsContract
from paygent.testing._contract_leases import ExpiryContract, GrantsContract, OperationsContract
from paygent.testing._contract_users import AccountsContract, PlansContract, WindowsContract

__all__ = ["LedgerContract"]


class LedgerContract(
    EventsContract,
    GrantsContract,
    OperationsContract,
    ExpiryContract,
    PlansContract,
    AccountsContract,
    WindowsContract,
):
    """All of it. A store whose clock is not the one handed to ``make_ledger`` needs its own time tests."""
