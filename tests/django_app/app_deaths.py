"""What processes of a test do that fork or die in the middle of telling."""

import os
import signal
import threading
import time

from app_calls import began, call, until_refused

from paygent.ledger import LedgerError

CHILDREN = 4
SOON_S = 60.0


def spend_and_die(pipe, given):
    """Call until refused; the process dies once that is in the books, and nobody has looked at it."""
    pg = began(given)
    from paygent_django.webhooks import embedded  # once Django is set up

    embedded.Embedded.posted = embedded.Embedded.decided = lambda *_: None
    pipe.send("ready")
    pipe.recv()
    until_refused(pg)
    pg.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def telling(given):
    """A process whose thread for webhooks runs."""
    pg = began(given)
    from paygent_django.webhooks import worker  # once Django is set up

    call(pg, "first")
    pg.flush()
    while not worker.is_running():
        time.sleep(0.01)
    return pg, worker


def fork_in_mid_turn(pipe, given):
    """Fork children while the thread never pauses; each spends the plan of a user of its own."""
    pg, worker = telling(given)
    threading.Thread(target=_always(worker.poke), daemon=True).start()
    for number in range(CHILDREN):
        time.sleep(0.01 * number)
        child = os.fork()
        if child == 0:
            until_refused(pg, f"child {number}")
            pg.shutdown()
            os._exit(0)
        pipe.send(os.waitpid(child, 0)[1])
    pg.shutdown()
    pipe.send("over")


def fork_while_a_step_runs(pipe, given):
    """Fork while the thread is at a step with the database; tell what the child and the parent see of it."""
    _, worker = telling(given)
    from django.db import connections

    began_step, steps, wrappers = threading.Event(), [], []

    def step():
        wrappers[:] = connections.all(initialized_only=True)
        began_step.set()
        time.sleep(0.5)
        steps.append("over")
        return False

    worker.each_turn(step)
    worker.poke()
    began_step.wait(SOON_S)
    child = os.fork()
    are_closed = [wrapper.connection is None for wrapper in wrappers]
    if child == 0:
        os._exit(0 if steps and all(are_closed) else 1)
    pipe.send((os.waitpid(child, 0)[1], are_closed))


def fork_within_a_transaction(pipe, given):
    """Fork within a transaction that has written, while the thread wants to write; is the child cut off?"""
    _, worker = telling(given)
    from django.db import transaction

    from paygent_django.models import WebhookEndpoint
    from paygent_django.services._base import rows
    from paygent_django.webhooks import forks

    inside = threading.Event()

    def step():
        inside.set()
        rows(WebhookEndpoint).update(timeouts=0)
        return False

    with transaction.atomic():
        rows(WebhookEndpoint).update(description="x")
        worker._turns.insert(0, step)  # the others write too, and would not let the thread come to this one
        worker.poke()
        if not inside.wait(SOON_S):
            pipe.send("the thread has not come to its step")
        child = os.fork()
        if child == 0:
            os._exit(forks.is_cut_off())
        status = os.waitpid(child, 0)[1]
    pipe.send(status)


def fork_while_a_step_hangs(pipe, given):
    """Fork while a step is at SQLite for longer than a fork waits; tell whether the child stays off it."""
    _, worker = telling(given)
    from paygent_django.ledger._connections import Own
    from paygent_django.webhooks import forks

    forks._WAIT_S = 0.1
    began_step, ends = threading.Event(), threading.Event()

    def step():
        began_step.set()
        ends.wait(SOON_S)
        return False

    worker.each_turn(step)
    worker.poke()
    began_step.wait(SOON_S)
    child = os.fork()
    if child == 0:
        worker.start()
        os._exit(0 if forks.is_cut_off() and not worker.is_running() and _refuses(Own("default")) else 1)
    status = os.waitpid(child, 0)[1]
    ends.set()
    pipe.send((status, forks.is_cut_off()))


def _refuses(source):
    try:
        with source.reading():
            return False
    except LedgerError:
        return True


def _always(act):
    def run():
        while True:
            act()
            time.sleep(0.002)

    return run
