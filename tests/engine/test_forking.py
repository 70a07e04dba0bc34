"""What a fork must not come into the middle of, and what a child must not inherit."""

import os
import socket
import subprocess
import sys
import threading

import pytest
from engine_values import event

from paygent import _forking
from paygent._forking import ProcessLock, know_the_resolver, no_fork, stop_at_forks
from paygent.delivery import Delivery
from paygent.journal import Journal
from paygent.ledger import LedgerError
from paygent.ledgers.memory import MemoryLedger
from paygent.recovery import dead_journals


def exit_code_of_child(code):
    """Fork, run *code* in the child, and return how it ended; one that hangs is ended by its own alarm."""
    child = os.fork()
    if child == 0:
        signal = __import__("signal")
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(60)
        os._exit(int(code() or 0))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_lock_that_another_thread_holds_is_free_in_a_child():
    """A child takes a lock that a thread of its parent held when it was forked; the parent's stays held."""
    lock = ProcessLock()
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with lock:
            inside.set()
            leave.wait(60)

    def take():
        with lock:
            return 7

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait(60)
    try:
        assert exit_code_of_child(take) == 7
        assert not lock._lock.acquire(blocking=False)
    finally:
        leave.set()
        holder.join()


def test_a_fork_waits_for_the_end_of_what_keeps_it_away():
    """Nobody is forked while a thread is within ``no_fork``."""
    inside, leave, steps = threading.Event(), threading.Event(), []

    def keep_away():
        with no_fork:
            inside.set()
            leave.wait(0.2)
            steps.append("done")

    thread = threading.Thread(target=keep_away)
    thread.start()
    inside.wait(60)
    assert exit_code_of_child(lambda: len(steps)) == 1
    thread.join()


def test_the_resolver_is_asked_once_while_no_fork_can_come(monkeypatch):
    """The C library reads its settings for looking up names under the lock that keeps forks away, once."""
    owned = []
    monkeypatch.setattr(_forking, "_is_resolver_known", False)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: owned.append(no_fork._is_owned()))
    know_the_resolver()
    know_the_resolver()
    assert owned == [True]


def test_a_machine_that_resolves_no_name_is_no_fault(monkeypatch):
    """Where not even the machine's own name can be looked up the first connection says so, not this."""

    def nothing(*_):
        raise socket.gaierror("no such name")

    monkeypatch.setattr(_forking, "_is_resolver_known", False)
    monkeypatch.setattr(socket, "getaddrinfo", nothing)
    know_the_resolver()
    assert _forking._is_resolver_known


_MADE_DURING_A_FORK = """
import os, sys, threading
from pathlib import Path
made, threads = [], []

def make():
    from paygent.ledgers.sqlite import SqliteLedger
    made.extend(SqliteLedger(Path(sys.argv[1])) for _ in range(20))

def in_the_middle():
    # Registered before Paygent's own: it runs when they have stopped all ledgers.
    if ledgers:
        threads.append(threading.Thread(target=make))
        threads[-1].start()
        threads[-1].join(0.3)

ledgers = []
os.register_at_fork(before=in_the_middle)
from paygent.ledgers.sqlite import SqliteLedger
ledgers.extend(SqliteLedger(Path(sys.argv[1])) for _ in range(20))
child = os.fork()
if child == 0:
    for ledger in ledgers:
        ledger.settle([])
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
threads[0].join()
assert len(made) == 20
for ledger in ledgers + made:
    assert not ledger._use.locked()
    ledger.settle([])
"""


def test_a_ledger_that_is_made_during_a_fork_stops_no_other(tmp_path):
    """A thread that makes ledgers while the process forks waits for its end; then all of them can be used."""
    done = subprocess.run(
        # From Python 3.12 on a fork beside a thread, which is what is tested, is warned of.
        [sys.executable, "-Wignore::DeprecationWarning", "-c", _MADE_DURING_A_FORK, str(tmp_path / "p.db")],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_what_begins_to_stop_at_forks_during_a_fork_stops_at_the_next(monkeypatch):
    """Whoever is registered while a fork is under way is not called back from a stop that it never made."""
    monkeypatch.setattr(_forking, "_stops", [])
    steps = []

    def stop(name):
        return [lambda step=step: steps.append(f"{name} {step}") for step in ("before", "parent", "child")]

    stop_at_forks(*stop("old"))
    _forking._before_fork()
    stop_at_forks(*stop("new"))
    _forking._after_fork_in_parent()
    assert steps == ["old before", "old parent"]
    _forking._before_fork()
    _forking._after_fork_in_parent()
    assert steps[2:] == ["old before", "new before", "new parent", "old parent"]


class Away(MemoryLedger):
    """A ledger that is away when it is to take what a dead process left; somebody forks at that moment."""

    def __init__(self):
        super().__init__()
        self.children, (self.forked, self.here), (self.end, self.stay) = [], os.pipe(), os.pipe()

    def settle(self, events, close=()):
        child = os.fork()
        if child == 0:
            os.close(self.stay)
            os.write(self.here, b"!")
            os.read(self.end, 1)
            os._exit(0)
        self.children.append(child)
        os.read(self.forked, 1)
        raise LedgerError("away")

    def let_go(self):
        os.close(self.stay)
        for child in self.children:
            os.waitpid(child, 0)
        for fd in (self.forked, self.here, self.end):
            os.close(fd)


def test_a_child_does_not_keep_a_journal_that_its_parent_recovers(tmp_path):
    """A child that is forked during a recovery in vain leaves the journal to whoever tries again."""
    dead, ledger = Journal(tmp_path, "dead"), Away()
    dead.append(event())
    dead.close(remove=False)
    try:
        with pytest.raises(LedgerError):
            Delivery(ledger, Journal(tmp_path, "mine"), "mine").recover()
        left = [one.path.stem for one in dead_journals(tmp_path, "mine")]
    finally:
        ledger.let_go()
    assert left == ["dead"]
