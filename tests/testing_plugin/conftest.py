from __future__ import annotations

import pytest

from paygent import Paygent
from paygent.testing.plugin import assert_blocked, assert_spend, paygent_provider, paygent_sandbox

__all__ = ["assert_blocked", "assert_spend", "paygent_provider", "paygent_sandbox"]


@pytest.fixture(autouse=True)
def _no_instance_is_left():
    yield
    assert Paygent.get_instance() is None
