"""RQ: a real Redis, a worker in this process and one that forks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import redis
import rq_tasks
from rq import Queue, Retry, SimpleWorker

from paygent import PaygentLimitExceeded, PlanConfig, paygent_context
from paygent.context import as_payer, current_payer
from paygent.integrations.rq import PaygentJob
from paygent.web.exemptions import Place
from paygent.web.options import WebOptions
from paygent.web.plugin import WebPlugin

HERE = Path(__file__).parent


@pytest.fixture
def connection(redis_url):
    with redis.Redis.from_url(redis_url) as connection:
        yield connection


@pytest.fixture
def queue(connection):
    return Queue(connection=connection, job_class=PaygentJob)


@pytest.fixture
def work(connection, queue):
    """Return a function that does all that is in the queue."""

    def work(**more):
        SimpleWorker([queue], connection=connection, job_class=PaygentJob).work(burst=True, **more)

    return work


def test_a_job_runs_for_the_user_who_enqueued_it(queue, work, posted):
    """Jobs of two users and of nobody on one worker: each call is charged to its own."""
    jobs = []
    for user in ("ann", "ben"):
        with paygent_context(user):
            jobs.append(queue.enqueue(rq_tasks.user))
    jobs.append(queue.enqueue(rq_tasks.user))
    work()
    assert [job.return_value()[1] for job in jobs] == ["ann", "ben", None]
    assert posted == ["ann", "ben"]
    assert current_payer() is None


def test_the_note_is_beside_the_users_own_meta(queue, work):
    """Meta that the app gives a job is its own."""
    with paygent_context("ann", "s1", metadata={"feature": "mail"}):
        job = queue.enqueue(rq_tasks.user, meta={"mine": 1})
    assert job.get_meta()["mine"] == 1
    assert set(job.get_meta()) == {"mine", "paygent"}


def test_meta_that_the_app_uses_again_carries_nobody_along(queue, work, posted):
    """A dict that the app gives to many jobs stays as it was: each job is its own sender's, or nobody's."""
    shared = {"team": "search"}
    jobs = []
    for user in ("ann", "ben"):
        with paygent_context(user):
            jobs.append(queue.enqueue(rq_tasks.user, meta=shared))
    jobs.append(queue.enqueue(rq_tasks.user, meta=shared))
    work()
    assert [job.return_value()[1] for job in jobs] == ["ann", "ben", None]
    assert (posted, shared) == (["ann", "ben"], {"team": "search"})


def test_a_retried_job_is_still_the_users(queue, work, posted, tmp_path):
    """What RQ runs again it runs for the same user."""
    with paygent_context("ann"):
        queue.enqueue(rq_tasks.fail_once, str(tmp_path / "flag"), retry=Retry(max=1))
    work()
    assert posted == ["ann"]


def test_a_spent_user_is_refused_in_the_worker(queue, work, pg):
    """The refusal is the job's failure; the worker goes on."""
    pg.configure_plan("free", PlanConfig(max_spend_per_period=0.0))
    pg.assign_plan("ann", "free")
    with paygent_context("ann"):
        job = queue.enqueue(rq_tasks.user)
    work(logging_level="CRITICAL")
    assert PaygentLimitExceeded.__name__ in job.latest_result().exc_string


def test_a_queue_that_runs_in_place_is_covered(connection, posted):
    """``is_async=False`` runs the job at once, in the caller's context."""
    queue = Queue(connection=connection, job_class=PaygentJob, is_async=False)
    with paygent_context("ann"):
        queue.enqueue(rq_tasks.user)
        assert current_payer().user_id == "ann"
    assert posted == ["ann"]


def test_a_job_that_runs_in_place_is_under_the_rules_of_its_request(connection, pg):
    """In place, a job's calls are counted by the request around it, whose trial run refuses nobody."""
    pg.configure_plan("free", PlanConfig(max_spend_per_period=0.0))
    pg.assign_plan("ann", "free")
    queue = Queue(connection=connection, job_class=PaygentJob, is_async=False)
    plugin = WebPlugin(
        WebOptions(report_only=True), default_user=lambda request: "ann", place_of=lambda request: Place("/")
    )
    slot = plugin.open({})
    with as_payer(slot):
        job = queue.enqueue(rq_tasks.user)
    assert (job.return_value()[1], slot.calls) == ("ann", 1)


def test_a_meta_that_was_tampered_with_is_nobodys(queue, work, posted, caplog):
    """Meta that is no note of ours names nobody; the job runs."""
    with paygent_context("ann"):
        job = queue.enqueue(rq_tasks.user)
    job.meta["paygent"] = {"user_id": "ben"}
    job.save_meta()
    work()
    assert job.return_value()[1] is None
    assert "note of who pays is left out" in caplog.text


def test_a_worker_with_a_process_per_job_meters(queue, tmp_path, pg, users_in_ledger, redis_url):
    """Each job has a process that ends without Python's exit: its call is settled, and no lease is left."""
    jobs = []
    for user, job in (("ann", rq_tasks.user), ("ben", rq_tasks.user_later), ("ann", rq_tasks.user)):
        with paygent_context(user):
            jobs.append(queue.enqueue(job))
    command = [
        sys.executable, "-m", "rq.cli", "worker", "--burst", "--url", redis_url,
        "--logging_level", "WARNING",
        "--job-class", "paygent.integrations.rq.PaygentJob",
    ]  # fmt: skip
    paths = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    environment = {**os.environ, "TASKS_DB": str(tmp_path / "p.db"), "PYTHONPATH": paths}
    subprocess.run(command, env=environment, check=True, timeout=100, stdin=subprocess.DEVNULL)
    assert len({job.return_value()[0] for job in jobs}) == 3
    assert users_in_ledger() == ["ann", "ben", "ann"]
    assert [pg.get_usage(user).reserved_cost for user in ("ann", "ben")] == [0.0, 0.0]
