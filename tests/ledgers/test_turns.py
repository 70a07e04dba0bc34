"""Threads that hold the lock of the machine's file get the interpreter soon."""

import os
import sys
import threading

import pytest

from paygent import Paygent, PlanConfig
from paygent._turns import TURN_S, ShortTurns, short_turns
from paygent.ledgers._lock import FileLock
from paygent.ledgers.memory import MemoryLedger

USUAL_S = 0.005


@pytest.fixture(autouse=True)
def _usual():
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(USUAL_S)
    yield
    sys.setswitchinterval(before_s)


def test_who_has_the_lock_file_is_not_kept_from_the_interpreter(tmp_path):
    """Turns are short while a thread holds the lock file, and as long as before once it does not."""
    with FileLock(tmp_path / "lock"):
        inside_s = sys.getswitchinterval()
    assert (inside_s, sys.getswitchinterval()) == (pytest.approx(TURN_S), USUAL_S)


def test_turns_are_short_while_the_ledger_is_asked(monkeypatch):
    """Whatever the ledger is, who waits for its answer does not wait for the other threads of the process."""
    seen, lease, plans = [], MemoryLedger.lease, MemoryLedger.put_plan

    def noted(function):
        return lambda *given: seen.append(sys.getswitchinterval()) or function(*given)

    monkeypatch.setattr(MemoryLedger, "lease", noted(lease))
    monkeypatch.setattr(MemoryLedger, "put_plan", noted(plans))
    pg = Paygent.init(ledger="memory://")
    pg.configure_plan("default", PlanConfig(max_spend_per_period=1.0))
    pg.start_session("ada")
    pg.shutdown()
    assert len(seen) > 2
    assert seen == [pytest.approx(TURN_S)] * len(seen)
    assert sys.getswitchinterval() == USUAL_S


def test_turns_stay_short_until_the_last_has_let_go(tmp_path):
    """Of two lock files the second one's end gives the interval back, whichever began first."""
    first, second = FileLock(tmp_path / "first"), FileLock(tmp_path / "second")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert sys.getswitchinterval() == pytest.approx(TURN_S)
    second.__exit__(None, None, None)
    assert sys.getswitchinterval() == USUAL_S


def test_a_lock_file_that_cannot_be_had_leaves_the_interval(tmp_path):
    """Where the lock file cannot be opened, turns are as long as before."""
    (tmp_path / "lock").mkdir()
    with pytest.raises(IsADirectoryError), FileLock(tmp_path / "lock"):
        pass
    assert sys.getswitchinterval() == USUAL_S


def test_an_error_inside_gives_the_interval_back(tmp_path):
    """A transaction that fails leaves the interval as it was."""
    with pytest.raises(OSError, match="full"), FileLock(tmp_path / "lock"):
        raise OSError("full")
    assert sys.getswitchinterval() == USUAL_S


@pytest.mark.parametrize("chosen_s", [TURN_S / 2, 0.02], ids=["shorter", "longer"])
def test_an_interval_set_meanwhile_stays(chosen_s):
    """What the app sets while turns are short is what it has afterwards."""
    turns = ShortTurns()
    turns.begin()
    sys.setswitchinterval(chosen_s)
    turns.end()
    assert sys.getswitchinterval() == pytest.approx(chosen_s)


def test_an_interval_that_is_short_already_stays():
    """An app whose turns are shorter than ours keeps them, inside and afterwards."""
    turns = ShortTurns()
    sys.setswitchinterval(TURN_S / 2)
    turns.begin()
    inside_s = sys.getswitchinterval()
    turns.end()
    assert (inside_s, sys.getswitchinterval()) == (pytest.approx(TURN_S / 2),) * 2


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of every fork with threads, since 3.12
def test_a_child_forked_inside_has_its_own_interval():
    """A child forked while a thread of its parent was inside has the usual interval, and can begin itself."""
    entered, leave = threading.Event(), threading.Event()

    def hold():
        short_turns.begin()
        entered.set()
        leave.wait(60)
        short_turns.end()

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait(60)
    child = os.fork()
    if child == 0:
        seen = [sys.getswitchinterval()]
        short_turns.begin()
        seen.append(sys.getswitchinterval())
        short_turns.end()
        seen.append(sys.getswitchinterval())
        os._exit(0 if seen == [pytest.approx(each) for each in (USUAL_S, TURN_S, USUAL_S)] else 1)
    _, status = os.waitpid(child, 0)
    leave.set()
    thread.join(60)
    assert (os.waitstatus_to_exitcode(status), sys.getswitchinterval()) == (0, USUAL_S)
