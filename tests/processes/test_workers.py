"""Processes that are no web servers: multiprocessing's and Celery's, on one file and one cap."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from fleet import HERE, Books, environment


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_of_multiprocessing_share_one_cap(method, llm, path):
    """Children answer with their parent what the cap covers, and leave nothing behind at their end."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", str(HERE / "pool.py"), method, str(path)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=100, check=True)
    told = json.loads(done.stdout)
    assert told == {"made": 60, "journals": 1, "codes": [0, 0, 0]}
    books = Books(path)
    assert books.calls == {"ada": 60}
    assert books.left == ([], [])


CALLS, TASKS = 20, 30


@pytest.fixture
def folder(tmp_path):
    for name in ("queue", "control", "processed", "outcomes", "workers"):
        (tmp_path / name).mkdir()
    return tmp_path


def publish(env):
    """Queue the tasks before anybody works on them."""
    code = f"import tasks\nfor number in range({TASKS}): tasks.call.delay(number)"
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=100)


def outcomes(folder):
    found = [file.read_text().split() for file in (folder / "outcomes").iterdir()]
    return Counter(words[0] for words in found if words), {words[1] for words in found if words}


def test_celerys_prefork_workers_share_one_cap(llm, path, folder):
    """Forked workers of Celery answer what the cap covers; a warm shutdown leaves no lease behind."""
    env = environment(APP_FOLDER=str(folder), APP_LEDGER=str(path), APP_CALLS=str(CALLS))
    publish(env)
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "--concurrency", "2"]
    options = ["--pool", "prefork", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    log = (folder / "log").open("w")
    worker = subprocess.Popen(
        [*command, *options], env=env, cwd=folder, stdout=log, stderr=log, start_new_session=True
    )
    try:
        ends_s = time.monotonic() + 80
        while outcomes(folder)[0].total() < TASKS and time.monotonic() < ends_s:
            time.sleep(0.05)
        worker.send_signal(signal.SIGTERM)
        worker.wait(30)
    finally:
        log.close()
        if worker.poll() is None:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait(10)
    made, processes = outcomes(folder)
    assert made == {"answered": CALLS, "spent": TASKS - CALLS}
    assert len(processes) == 2
    books = Books(path)
    assert books.calls == {"ada": CALLS}
    # Celery ends a child that takes its time: a journal that is left then holds nothing that is not counted.
    assert books.left[0] == []
