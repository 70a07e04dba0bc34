"""The Celery app of the tests: one LLM call per task, on a broker that is a folder."""

from __future__ import annotations

import os
from pathlib import Path

import openai
from celery import Celery
from fleet import ask, plan

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
    broker_connection_retry_on_startup=False,
)
Paygent.init(db_path=os.environ["APP_LEDGER"]).configure_plan("default", plan(int(os.environ["APP_CALLS"])))
sdk = openai.OpenAI(max_retries=0)


@app.task
def call(number):
    (FOLDER / "outcomes" / str(number)).write_text(f"{ask(sdk)} {os.getpid()}")
