"""Batches that wait at the same moment are posted in one transaction, and each is told its own."""

import os
import threading
import time

import pytest

from paygent.testing._contract_values import at_once
from paygent_django.api.together import EVENTS_MAX, Together, together
from paygent_django.ledger import Posted

WAIT_S = 30.0


class Ledger:
    """Counts what it is given; the first transaction lasts until it is let go."""

    def __init__(self):
        self.groups = []
        self.has_begun, self.may_end = threading.Event(), threading.Event()

    def post_batches(self, batches):
        is_first = not self.groups
        self.groups.append([list(batch) for batch in batches])
        if is_first:
            self.has_begun.set()
            assert self.may_end.wait(WAIT_S)
        if any("bad" in batch for batch in batches):
            raise ValueError("bad")
        return [Posted(len(batch), 0, []) for batch in batches]


def posted_with(first, others):
    """Post *first*, and *others* while it lasts; returns the ledger and what each of *others* was told."""
    ledger, meeting, told = Ledger(), Together(), {}

    def post(index):
        try:
            told[index] = meeting.post(ledger, others[index]).accepted
        except ValueError as error:
            told[index] = error

    leader = threading.Thread(target=lambda: meeting.post(ledger, first))
    leader.start()
    assert ledger.has_begun.wait(WAIT_S)
    threads = []
    for index in range(len(others)):
        threads.append(threading.Thread(target=post, args=(index,)))
        threads[-1].start()
        ends_s = time.monotonic() + WAIT_S
        while len(meeting._waiting) <= index and time.monotonic() < ends_s:
            time.sleep(0.001)
    ledger.may_end.set()
    for thread in (leader, *threads):
        thread.join(WAIT_S)
        assert not thread.is_alive()
    return ledger, [told[index] for index in range(len(others))]


def test_batches_that_wait_become_one_transaction():
    """Three batches that came during a transaction are posted in the next one, and told their own counts."""
    ledger, told = posted_with(["a"], [["b"], ["c", "d"], ["e", "f", "g"]])
    assert ledger.groups == [[["a"]], [["b"], ["c", "d"], ["e", "f", "g"]]]
    assert told == [1, 2, 3]


def test_a_batch_that_fails_fails_alone():
    """Where one of several batches cannot be stored, the others are, and only its caller is told."""
    _, told = posted_with(["a"], [["b"], ["bad"], ["c"]])
    assert told[0] == told[2] == 1
    assert isinstance(told[1], ValueError)


def test_a_group_stays_small():
    """No transaction of several batches takes more than a thousand events; what is left is the next one."""
    half = ["x"] * (EVENTS_MAX // 2)
    ledger, told = posted_with(["a"], [half, half, half])
    assert [len(group) for group in ledger.groups] == [1, 2, 1]
    assert told == [len(half)] * 3


def test_a_failure_is_over_with_its_batch():
    """The caller who comes after one whose batch failed posts his own."""
    ledger, meeting = Ledger(), Together()
    ledger.may_end.set()
    with pytest.raises(ValueError, match="bad"):
        meeting.post(ledger, ["bad"])
    assert meeting.post(ledger, ["b"]).accepted == 1


def test_nobody_waits_for_company():
    """One batch after the other is posted at once, each in a transaction of its own."""
    ledger, meeting = Ledger(), Together()
    ledger.may_end.set()
    assert [meeting.post(ledger, ["a"]).accepted for _ in range(3)] == [1, 1, 1]
    assert len(ledger.groups) == 3


def test_many_threads_lose_nothing():
    """Eight threads that post a hundred batches each are told of all their events, which are posted once."""
    ledger, meeting, told = Ledger(), Together(), []
    ledger.may_end.set()

    def work(number):
        told.extend(meeting.post(ledger, [f"{number}/{index}"]).accepted for index in range(100))

    at_once(work, range(8))
    posted = [event for group in ledger.groups for batch in group for event in batch]
    assert sum(told) == len(posted) == len(set(posted)) == 800


def test_a_forked_child_meets_nobody_of_its_parent():
    """A child forked while its parent posts does not wait for that to end: it posts its own."""
    here = together("default", 1)
    child = os.fork()
    if child == 0:
        os._exit(together("default", 1) is here)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert together("default", 1) is here
