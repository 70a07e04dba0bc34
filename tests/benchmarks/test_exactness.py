"""Of the benchmark ``exactness``, what is counted and not timed."""

import time

import pytest

from benchmarks.exactness import real_trips, virtual_trips

CAP = 1000


def test_four_processes_seldom_ask_the_ledger():
    """Four processes make 900 of 1 000 calls with less than one trip in twenty, and may use 99 % of all."""
    began_s = time.monotonic()
    trips = real_trips(4, CAP)
    # A process that is used settles once a second, however seldom it comes to make a call on a busy machine.
    beats = 4 * (time.monotonic() - began_s)
    assert trips.per_call - beats / (0.9 * CAP) < 0.05
    assert 0.99 <= trips.usable <= 1


# What each fleet may ask for; near a limit that many share, each call is a trip of its own.
@pytest.mark.parametrize(("workers", "most"), [(1, 0.05), (4, 0.05), (16, 0.25), (64, 1.5)])
def test_a_fleet_asks_the_ledger_as_often_as_it_must(workers, most):
    """However many share a cap for 1 000 calls, trips stay within bounds and 99 % of the cap can be used."""
    trips = virtual_trips(workers, CAP)
    assert trips.per_call < most
    assert 0.99 <= trips.usable <= 1
