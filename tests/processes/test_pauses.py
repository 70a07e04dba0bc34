"""A process that is stopped while others go on spends nothing that is theirs when it wakes up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from fleet import HERE, Books, environment

from paygent.ledger import LEASE_TTL_S

CALLS = 100
# Grants and leases live for a twentieth of their time; PAYGENT_TRUE_MINUTE=1 waits for the whole of it.
SCALE = 1.0 if os.environ.get("PAYGENT_TRUE_MINUTE") else 0.05
PAUSE_S = 2 * LEASE_TTL_S * SCALE


class Remote:
    """A process of ``commanded.py``."""

    def __init__(self, path, exact, scale):
        command = [sys.executable, str(HERE / "commanded.py"), str(path), str(CALLS), str(exact), str(scale)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env=environment(), stdin=pipe, stdout=pipe, text=True)

    def __call__(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def end(self):
        """Let it end by itself; whatever happens, it is gone then."""
        try:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGCONT)
                self.process.communicate(timeout=60)
        finally:
            self.process.kill()
            self.process.wait(10)
            self.process.stdin.close()
            self.process.stdout.close()


@pytest.fixture
def start(path):
    started = []

    def start(exact, scale=SCALE):
        started.append(Remote(path, exact, scale))
        return started[-1]

    yield start
    for remote in started:
        remote.end()


@pytest.mark.parametrize("exact", [True, False])
def test_a_stopped_process_spends_nothing_that_others_hold(start, path, exact):
    """While a process is stopped its lease ends and another spends the rest; awake again it is refused."""
    sleeper, other = start(exact), start(exact)
    assert sleeper("call 10") == {"answered": 10}
    sleeper("flush")
    sleeper.process.send_signal(signal.SIGSTOP)
    time.sleep(PAUSE_S)
    assert other("until spent")["answered"] == CALLS + (not exact) - 10
    sleeper.process.send_signal(signal.SIGCONT)
    assert sleeper("call 20") == {"spent": 20}
    sleeper.end()
    other.end()
    books = Books(path)
    assert books.calls == {"ada": CALLS + (not exact)}
    assert books.left == ([], [])


def test_what_a_stopped_process_holds_stays_its_own(start):
    """As long as its lease lives, what a stopped process holds is given to nobody, and it may spend that."""
    sleeper, other = start(exact=True, scale=1.0), start(exact=True, scale=1.0)
    sleeper("call 10")
    sleeper.process.send_signal(signal.SIGSTOP)
    made = other("until busy")["answered"]
    sleeper.process.send_signal(signal.SIGCONT)
    assert 0 < made < CALLS - 10
    assert made + 10 + sleeper("until spent")["answered"] == CALLS


def test_a_call_that_a_pause_interrupts_is_counted_and_makes_no_room(start, path):
    """What was in flight when a process stopped is posted beyond the cap, as the one debt there is."""
    sleeper, other = start(exact=True), start(exact=True)
    sleeper("call 10")
    sleeper("open")
    sleeper("flush")
    sleeper.process.send_signal(signal.SIGSTOP)
    time.sleep(PAUSE_S)
    assert other("until spent")["answered"] == CALLS - 10
    sleeper.process.send_signal(signal.SIGCONT)
    assert sleeper("call 5") == {"spent": 5}
    sleeper("close")
    sleeper.end()
    assert Books(path).calls == {"ada": CALLS + 1}


def test_answers_not_settled_before_a_pause_are_late(start, path):
    """What a process answered and had not settled when it stopped is posted when it wakes, beyond the cap."""
    sleeper, other = start(exact=True), start(exact=True)
    sleeper("call 1")
    sleeper("flush")
    sleeper("call 5")
    sleeper.process.send_signal(signal.SIGSTOP)
    time.sleep(PAUSE_S)
    made = other("until spent")["answered"]
    sleeper.process.send_signal(signal.SIGCONT)
    assert sleeper("call 5") == {"spent": 5}
    sleeper.end()
    assert CALLS - 6 <= made <= CALLS - 1
    assert Books(path).calls == {"ada": made + 6}
