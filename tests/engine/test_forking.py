"""What a fork must not come into the middle of, and what a child must not inherit."""

import os
import socket
import subprocess
import sys
import threading

import pytest

from paygent import _forking
from paygent._forking import ProcessLock, know_the_resolver, no_fork

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


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
        [sys.executable, "-c", _MADE_DURING_A_FORK, str(tmp_path / "p.db")],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
