from __future__ import annotations

import pytest

from paygent import Paygent
from paygent.testing.plugin import assert_blocked, assert_spend, paygent_provider, paygent_sandbox

__all__ = ["assert_blocked", "assert_spend", "paygent_provider", "paygent_sandbox"]


@pytest.fixture(autouse=True)
def _no_instance_is_left():
    before = Paygent.get_instance()  # which a test of another folder has left
    if before is not None:
        before.shutdown()
    yield
    assert Paygent.get_instance() is None
