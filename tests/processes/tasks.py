"""The Celery app of the tests: one LLM call per task, on a broker that is a folder."""

from __future__ import annotations

import os
import time
from pathlib import Path

import openai
from celery import Celery
from fleet import ask_surely, plan

from paygent import Paygent

FOLDER = Path(os.environ["APP_FOLDER"])
app = Celery("tasks", broker="filesystem://")
app.conf.update(
    broker_transport_options={
        "data_folder_in": str(FOLDER / "queue"),
        "data_folder_out": str(FOLDER / "queue"),
        "control_folder": str(FOLDER / "control"),
        "processed_folder": str(FOLDER / "processed"),
    },
    task_ignore_result=True,
    worker_send_task_events=False,
    worker_proc_alive_timeout=60,
    broker_connection_retry_on_startup=False,
)
pg = Paygent.init(db_path=os.environ["APP_LEDGER"], fail_open=False)
pg.configure_plan("default", plan(int(os.environ["APP_CALLS"])))
sdk = openai.OpenAI(max_retries=0)


def meet():
    """Wait until two processes have a task: on a busy machine one might have done them all before."""
    (FOLDER / "workers" / str(os.getpid())).touch()
    ends_s = time.monotonic() + 60
    while len(list((FOLDER / "workers").iterdir())) < 2 and time.monotonic() < ends_s:
        time.sleep(0.02)


@app.task
def call(number):
    meet()
    (FOLDER / "outcomes" / str(number)).write_text(f"{ask_surely(sdk)} {os.getpid()}")
