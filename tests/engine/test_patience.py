"""A ledger that is away is told from one that is only busy."""

import fcntl
import os
import threading
import time
from concurrent.futures import Future

import pytest
from engine_values import call, plan

from paygent.exporter import Asking
from paygent.ledgers._lock import FileLock
from paygent.meter.patience import LOOK_S, PATIENCE_S, Patience


class Asks:
    """What the ledger thread is at, and how far the store's own clock stands."""

    def __init__(self):
        self.now_s = 100.0
        self.asking = Asking(100.0, 7)
        self.at = 7

    def pulse(self):
        return self.at


@pytest.fixture
def asks():
    return Asks()


def looks(asks, until_s, step_s=LOOK_S):
    """What is seen at looks in a row."""
    patience = Patience(asks, lambda: asks.now_s)
    seen = []
    while asks.now_s - 100.0 < until_s:
        asks.now_s += step_s
        seen.append(patience.is_over())
    return seen


def test_nobody_is_asked(asks):
    """Where the ledger thread is at nothing, nothing is away, however long that lasts."""
    asks.asking = None
    assert not any(looks(asks, 10))


def test_a_request_without_end(asks):
    """One request that goes on, while nobody has a turn at the store, is over within the patience."""
    seen = looks(asks, PATIENCE_S)
    assert seen.index(True) * LOOK_S < PATIENCE_S
    assert seen[-1]


def test_a_store_at_which_others_have_their_turns(asks):
    """As long as somebody has his turn at the store it is busy; when that ends, patience begins."""
    patience = Patience(asks, lambda: asks.now_s)
    for _ in range(100):
        asks.now_s += LOOK_S
        asks.at += 1
        assert not patience.is_over()
    seen = []
    for _ in range(6):
        asks.now_s += LOOK_S
        seen.append(patience.is_over())
    assert (seen[0], seen[-1]) == (False, True)


def test_one_request_after_another(asks):
    """Requests that each end are no ledger that is away, even where every look finds one under way."""
    patience = Patience(asks, lambda: asks.now_s)
    for _ in range(100):
        asks.now_s += LOOK_S
        asks.asking = Asking(asks.now_s, 7)
        assert not patience.is_over()


def test_a_process_that_was_stopped_has_seen_nothing(asks):
    """After a minute's stop the first look decides nothing; one that goes on for a while longer does."""
    patience = Patience(asks, lambda: asks.now_s)
    asks.now_s += 60
    assert not patience.is_over()
    assert not patience.is_over()
    asks.now_s += LOOK_S
    assert patience.is_over()


def test_waiting_ends_with_the_answer():
    """Whoever waits hears of the answer, and that it came."""
    asks, future = Asks(), Future()
    threading.Timer(0.05, future.set_result, (1,)).start()
    assert Patience(asks, time.monotonic).wait(future, 60)


def test_waiting_ends_with_the_patience(asks):
    """Whoever waits for a ledger that is away hears of that, long before his own time is over."""
    asks.asking = Asking(time.monotonic(), 7)
    assert not Patience(asks, time.monotonic).wait(Future(), 600)


@pytest.mark.parametrize("moves", [True, False], ids=["busy", "away"])
def test_a_file_that_others_hold(init, tmp_path, monkeypatch, moves):
    """A lock that changes hands is waited for; one that a process sits on is not, and calls go on without."""
    pg = init(busy_timeout=600)
    pg.configure_plan("default", plan(10))
    lock, looks, is_over = os.open(tmp_path / "p.db.lock", os.O_RDWR), [], Patience.is_over

    def look(patience):
        looks.append(None)
        if moves:
            os.utime(lock)  # as a process does that has its turn
            if len(looks) == 20:
                fcntl.flock(lock, fcntl.LOCK_UN)
        return is_over(patience)

    monkeypatch.setattr(Patience, "is_over", look)
    fcntl.flock(lock, fcntl.LOCK_EX)
    call(pg)
    assert pg.is_degraded is not moves
    os.close(lock)
    pg.flush()
    assert pg.pending_events == 0


def test_a_turn_in_vain_is_no_turn(tmp_path):
    """A process that had the lock file and found the store locked by another program moves no queue."""
    lock = FileLock(tmp_path / "lock")
    with lock:
        pass
    os.utime(tmp_path / "lock", ns=(0, 7_000))
    with pytest.raises(OSError, match="locked"), lock:
        raise OSError("locked")
    assert lock.pulse() == 7_000
    with lock:
        pass
    assert lock.pulse() > 7_000
