"""The app of a Celery worker with a pool of processes: ``celery -A celery_tasks worker``."""

from __future__ import annotations

import os

import task_calls
from celery import Celery
from celery.signals import worker_process_init

from paygent.integrations import celery

app = Celery("tasks", broker=os.environ["TASKS_BROKER"], backend=os.environ["TASKS_BROKER"])
app.conf.broker_connection_retry_on_startup = True
app.conf.worker_proc_alive_timeout = 60  # seconds, on a busy machine
celery.install()

if "TASKS_INIT_IN_CHILD" in os.environ:
    worker_process_init.connect(lambda **_: task_calls.start_paygent(), weak=False)
elif "TASKS_DB" in os.environ:
    task_calls.start_paygent()


@app.task
def ask():
    """Make one call of a model."""
    return task_calls.ask()
