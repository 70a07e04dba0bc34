from __future__ import annotations

import logging

import pytest
from api_world import World
from ledger_waits import ledger_waits

from paygent import Paygent

__all__ = ["ledger_waits"]


@pytest.fixture(autouse=True)
def _instance_ends_with_the_test():
    yield
    pg = Paygent.get_instance()
    if pg is not None:
        pg.shutdown()


@pytest.fixture
def pg():
    """Start a Paygent on a ledger in memory, the SDKs patched."""
    return Paygent.init(ledger="memory://")


@pytest.fixture
def world():
    """Start a Paygent whose clock only moves when it is told to."""
    return World()


@pytest.fixture
def log(caplog):
    """Collect what Paygent logs."""
    caplog.set_level(logging.DEBUG, logger="paygent")
    return caplog
