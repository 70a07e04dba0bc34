import time

import pytest

from paygent import clock
from paygent.clock import boot_clock, whichever_is_ahead
from paygent.testing.clock import FakeClock


def test_time_passes_when_either_clock_says_so():
    """The combined clock follows the wall clock through a sleep that the other one did not count."""
    times = {"monotonic": 100.0, "wall": 5000.0}
    read = whichever_is_ahead(lambda: times["monotonic"], lambda: times["wall"])
    start = read()
    times["monotonic"] += 1
    times["wall"] += 1
    assert read() == pytest.approx(start + 1)
    times["wall"] += 3600
    assert read() == pytest.approx(start + 3601)


def test_the_combined_clock_never_goes_back():
    """A wall clock that is set back is not followed, and time goes on from there."""
    times = {"monotonic": 100.0, "wall": 5000.0}
    read = whichever_is_ahead(lambda: times["monotonic"], lambda: times["wall"])
    start = read()
    times["wall"] -= 4000
    times["monotonic"] += 1
    assert read() == pytest.approx(start + 1)
    times["wall"] += 4000
    times["monotonic"] += 1
    assert read() == pytest.approx(start + 2)


def test_there_is_always_a_clock(monkeypatch):
    """Where the system cannot tell how long it slept the combined clock is used."""
    assert boot_clock()() <= boot_clock()()
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    monkeypatch.setattr(clock.sys, "platform", "other")
    read = boot_clock()
    assert read() <= read()


def test_the_fake_clock_moves_when_it_is_told_to():
    """Both of its clocks advance together, and the wall clock alone can be set."""
    fake = FakeClock()
    wall, boot = fake.now_us(), fake.boot()
    fake.advance(1.5)
    assert (fake.now_us() - wall, fake.boot() - boot) == (1_500_000, 1.5)
    fake.set_wall(-10)
    assert (fake.now_us() - wall, fake.boot() - boot) == (-8_500_000, 1.5)
