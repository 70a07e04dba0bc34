"""Processes that fork or die while there is something to tell."""

import json
import signal
import time
from collections import Counter

import app_deaths
import pytest
from app_calls import call, plan

from paygent import Paygent
from paygent_django import services, webhooks
from paygent_django.models import WebhookDelivery, WebhookNews
from paygent_django.services._base import rows

NEWS = ["threshold_50", "threshold_80", "threshold_100", "hard_gate", "blocked"]
# Where all have spent what they held before one of them learns of the others, nobody is warned.
PERHAPS = ["soft_gate"]
WAIT_S = 60.0
# Python 3.12 and later warn of every fork in a process with threads; that is what is tested here.
pytestmark = [
    pytest.mark.usefixtures("webhooks_to_loopback"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


def listen(receiver, calls, **more):
    """Have the receiver told of users, each of whom may make so many calls."""
    exact = plan(calls, max_spend_per_period=calls / 100, pre_call_estimate=False)
    services.save_plan(services.project(), "default", exact)
    webhooks.create_endpoint(services.project(), receiver.url, **more)


def received(receiver):
    """How often each event has arrived for each user."""
    told = (json.loads(body) for _, body in list(receiver.received))
    return Counter((said["type"], said["data"]["user_id"]) for said in told)


def until(condition):
    ends_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < ends_s, "too late"
        time.sleep(0.02)


def test_what_the_dead_have_not_told_others_tell_once(start, receiver):
    """Eight processes are killed after their commit, before they queue anything: the next call tells all."""
    listen(receiver, 40)
    crowd = [start(app_deaths.spend_and_die) for _ in range(8)]
    assert [pipe.recv() for _, pipe in crowd] == ["ready"] * 8
    for _, pipe in crowd:
        pipe.send("go")
    for process, _ in crowd:
        process.join(WAIT_S)
    assert [process.exitcode for process, _ in crowd] == [-signal.SIGKILL] * 8
    assert not rows(WebhookDelivery).exists()
    pg = Paygent.init(ledger="django://", auto_instrument=False)
    call(pg, "bob")
    until(lambda: {(event, "ada") for event in NEWS} <= received(receiver).keys())
    pg.shutdown()
    told = received(receiver)
    assert told.keys() <= {(event, "ada") for event in NEWS + PERHAPS}
    assert set(told.values()) == {1}
    assert not rows(WebhookNews).exists()


def test_forked_children_tell_by_themselves(start, receiver):
    """Children forked while their parent's thread is at work meter within their caps and tell, once each."""
    listen(receiver, 6, events=["threshold_100"])
    _, pipe = start(app_deaths.fork_in_mid_turn)
    assert [pipe.recv() for _ in range(app_deaths.CHILDREN + 1)] == [0] * app_deaths.CHILDREN + ["over"]
    users = [f"child {number}" for number in range(app_deaths.CHILDREN)]
    webhooks.tell()
    while webhooks.deliver_due():
        pass
    until(lambda: len(received(receiver)) == len(users))
    assert received(receiver) == Counter(("threshold_100", user) for user in users)


def test_a_fork_waits_for_the_thread(start, receiver):
    """A child is forked when the thread has left the database, and shares no open connection with it."""
    listen(receiver, 6)
    _, pipe = start(app_deaths.fork_while_a_step_runs)
    status, are_closed = pipe.recv()
    assert status == 0
    assert are_closed == [True]


@pytest.mark.parametrize("alias", ["sqlite"], indirect=True)
def test_a_fork_within_a_transaction_cuts_nobody_off(start, receiver):
    """The thread gives up sooner than a fork does that it waits for: the child may use the file."""
    listen(receiver, 6)
    _, pipe = start(app_deaths.fork_within_a_transaction)
    assert pipe.recv() == 0


@pytest.mark.parametrize("alias", ["sqlite"], indirect=True)
def test_a_child_of_a_long_step_stays_off_the_file(start, receiver):
    """Where SQLite was in use for longer than a fork waits, the child leaves webhooks to other processes."""
    listen(receiver, 6)
    _, pipe = start(app_deaths.fork_while_a_step_hangs)
    assert pipe.recv() == (0, False)
