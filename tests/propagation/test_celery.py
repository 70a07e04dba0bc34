"""Celery: real brokers and workers; the user travels in the message's headers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import task_calls
from celery import Celery, chain, chord, group
from celery.contrib.testing.worker import start_worker

from paygent import PlanConfig, paygent_context, paygent_exempt
from paygent.context import current_payer
from paygent.integrations import celery

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _installed():
    celery.install()
    yield
    celery.uninstall()


@pytest.fixture(scope="module")
def app():
    """Return an app whose broker is in this process."""
    app = Celery("tests", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.worker_hijack_root_logger = False

    @app.task(name="ask", shared=False)
    def ask(*_):
        task_calls.ask()
        payer = current_payer()
        return None if payer is None else payer.user_id

    @app.task(name="retried", bind=True, max_retries=2, default_retry_delay=0, shared=False)
    def retried(self):
        if self.request.retries < 2:
            raise self.retry()
        task_calls.ask()

    @app.task(name="sends", shared=False)
    def sends():
        ask.delay()

    return app


@pytest.fixture(scope="module")
def worker(app):
    """Run a worker in a thread of this process."""
    with start_worker(
        app, pool="solo", loglevel="WARNING", perform_ping_check=False, shutdown_timeout=10
    ) as worker:
        yield worker


def get(result):
    return result.get(timeout=60, interval=0.01)


@pytest.fixture
def settled(worker, posted):
    """Wait for calls that no result stands for."""

    def settled(count):
        ends_s = time.monotonic() + 60
        while len(posted) < count and time.monotonic() < ends_s:
            time.sleep(0.01)
        return posted

    return settled


def test_a_task_runs_for_the_user_who_sent_it(app, worker, posted):
    """Interleaved tasks of two users and nobody: each call is charged to whoever sent its task."""
    results = []
    for user in ("ann", "ben", "ann"):
        with paygent_context(user):
            results.append(app.tasks["ask"].delay())
    results.append(app.tasks["ask"].delay())
    assert [get(result) for result in results] == ["ann", "ben", "ann", None]
    assert posted == ["ann", "ben", "ann"]


def test_session_and_metadata_arrive(app, worker, pg):
    """The event of the task's call has the session and the metadata of the request."""
    events = []
    pg.on_usage(events.append)
    with paygent_context("ann", "s1", metadata={"feature": "mail"}):
        result = app.tasks["ask"].delay()
    get(result)
    assert [(event.session_id, event.metadata) for event in events] == [("s1", {"feature": "mail"})]


def test_chains_groups_and_chords_stay_the_users(app, worker, posted):
    """What the worker sends on behalf of a task is noted like the task itself."""
    task = app.tasks["ask"]
    with paygent_context("ann"):
        chained = chain(task.si(), task.si()).delay()
        grouped = chord(group(task.si(), task.si()), task.si()).delay()
    assert (get(chained), get(grouped)) == ("ann", "ann")
    assert posted == ["ann"] * 5


def test_a_retry_is_the_users(app, settled):
    """A task that is retried is sent again from the worker, for the same user."""
    with paygent_context("ann"):
        app.tasks["retried"].delay()
    assert settled(1) == ["ann"]


def test_a_task_that_a_task_sends_is_the_users(app, settled):
    """A task within a task belongs to the user of the first."""
    with paygent_context("ann"):
        app.tasks["sends"].delay()
    assert settled(1) == ["ann"]


def test_a_spent_user_is_refused_in_the_worker(app, worker, pg):
    """The gate stands in the worker too: the refusal is the task's result."""
    pg.configure_plan("free", PlanConfig(max_spend_per_period=0.0))
    pg.assign_plan("ann", "free")
    with paygent_context("ann"):
        result = app.tasks["ask"].delay()
    with pytest.raises(Exception, match="Limit reached"):
        get(result)
    assert result.state == "FAILURE"


def test_system_work_is_nobodys(app, worker):
    """A task sent from ``paygent_exempt`` carries no user."""
    with paygent_exempt():
        result = app.tasks["ask"].delay()
    assert get(result) is None


def test_a_forged_header_is_nobodys(app, worker, posted, caplog):
    """A header that no producer of ours writes is left out, with a warning, and the task runs."""
    result = app.tasks["ask"].apply_async(headers={"paygent": {"user_id": "ann"}})
    assert get(result) is None
    assert "note of who pays is left out" in caplog.text


def test_a_task_that_runs_in_place_stays_in_its_context(app, posted):
    """``apply`` sends no message: the caller's context is the task's, and is there afterwards."""
    with paygent_context("ann"):
        assert app.tasks["ask"].apply().get() == "ann"
        assert current_payer().user_id == "ann"
    assert posted == ["ann"]


def test_installing_twice_notes_once(app, worker, posted):
    """Producer and worker may both install, in one process too."""
    celery.install()
    with paygent_context("ann"):
        result = app.tasks["ask"].delay()
    assert (get(result), posted) == ("ann", ["ann"])
    assert current_payer() is None


def test_without_the_line_nothing_travels(app, worker):
    """The hand-over is opt-in."""
    celery.uninstall()
    with paygent_context("ann"):
        result = app.tasks["ask"].delay()
    assert get(result) is None


# --- a pool of processes ----------------------------------------------------------------------------------


def start_processes(redis_url, ledger, **more):
    # Celery would set Django up where this names settings, as other tests of this run may have done.
    inherited = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    environment = {
        **inherited, "TASKS_BROKER": redis_url, "TASKS_DB": str(ledger),
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])]), **more,
    }  # fmt: skip
    command = [sys.executable, "-m", "celery", "-A", "celery_tasks", "worker", "-P", "prefork", "-c", "2"]
    command += ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "WARNING"]
    return subprocess.Popen(command, cwd=HERE, env=environment, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("more", [{}, {"TASKS_INIT_IN_CHILD": "1"}], ids=["before the fork", "in the child"])
def test_each_child_of_a_prefork_pool_meters(tmp_path, pg, users_in_ledger, redis_url, more):
    """Two children, whichever forked first: every call is in the ledger for its user when the worker ends."""
    app = Celery("tasks", broker=redis_url, backend=redis_url, set_as_current=False)
    process = start_processes(redis_url, tmp_path / "p.db", **more)
    try:
        results = []
        for number in range(12):
            with paygent_context(f"user-{number % 3}"):
                results.append(app.send_task("celery_tasks.ask"))
        pids = {result.get(timeout=60) for result in results}
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    assert process.pid not in pids
    assert sorted(users_in_ledger()) == sorted(f"user-{number % 3}" for number in range(12))
    assert [pg.get_usage(f"user-{number}").reserved_cost for number in range(3)] == [0.0] * 3
    app.close()
