"""Real web servers with several processes on one file: one cap, every answer counted, nothing left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from fleet import Books, ask_surely, client, environment
from listening import Listening

CALLS = 60
STOP_S_MAX = 25.0  # after which gunicorn would soon end its workers by force
WAIT_S_MAX = 60.0


def gunicorn(port, *options):
    options = ["-b", f"127.0.0.1:{port}", "--log-level", "warning", *options]
    return ["-m", "gunicorn", "served_app:application", *options]


def uvicorn(port, *options):
    options = ["--port", str(port), "--log-level", "warning", *options]
    return ["-m", "uvicorn", "served_app:app", "--host", "127.0.0.1", *options]


# How each is started, and how many processes import the app: each of those makes a call as it does.
SERVERS = {
    "gunicorn-sync": (gunicorn, ("--workers", "3"), 3),
    "gunicorn-preload": (gunicorn, ("--workers", "3", "--preload"), 1),
    "gunicorn-gthread": (gunicorn, ("--workers", "2", "--threads", "4", "--preload"), 1),
    "gunicorn-gevent": (gunicorn, ("--workers", "2", "-k", "gevent"), 2),
    "gunicorn-gevent-preload": (gunicorn, ("--workers", "2", "-k", "gevent", "--preload"), 1),
    "uvicorn": (uvicorn, ("--workers", "2", "--timeout-worker-healthcheck", "60"), 2),
}


@contextlib.contextmanager
def serving(kind, path):
    """Run a server until each process that imports the app has done so; it is killed if it is still there."""
    command, options, imports = SERVERS[kind]
    imported = path.with_name("imported")
    imported.mkdir()
    given = {"APP_LEDGER": str(path), "APP_CALLS": str(CALLS), "APP_IMPORTED": str(imported)}
    server = Listening(lambda port: command(port, *options), path.with_name("log"), env=environment(**given))
    try:
        server.until_up("/early")  # whose answer is a call
        until(lambda: len(list(imported.iterdir())) == imports)
        yield server
    finally:
        server.kill()


def spend(url, threads=8):
    """Ask until the cap is spent, from many clients; how often each answer came."""

    def one(_):
        seen = Counter()
        with httpx.Client(base_url=url, trust_env=False, timeout=WAIT_S_MAX) as browser:
            while not seen["spent"] and seen.total() <= CALLS:
                seen[browser.get("/ada", headers={"connection": "close"}).text] += 1
        return seen

    with ThreadPoolExecutor(threads) as clients:
        return sum(clients.map(one, range(threads)), Counter())


def until(condition):
    """Wait for what other processes are about to do."""
    ends_s = time.monotonic() + WAIT_S_MAX
    while not condition():
        assert time.monotonic() < ends_s, "it did not happen"
        time.sleep(0.05)


@pytest.mark.parametrize("kind", SERVERS)
def test_the_workers_of_a_server_share_one_cap(kind, llm, path):
    """All workers together answer what the cap covers; after SIGTERM all is counted, nothing is left."""
    with serving(kind, path) as server:
        seen = spend(server.url)
        server.end(STOP_S_MAX)
    assert seen["answered"] == CALLS - SERVERS[kind][2]
    books = Books(path)
    assert books.calls == {"ada": CALLS, "early": 1}
    assert books.left == ([], [])


def test_what_a_server_leaves_is_recovered(llm, path, init):
    """Workers that are ended without a chance to flush lose no answer: the next process counts them all."""
    with serving("uvicorn", path) as server:
        seen = spend(server.url)
        os.killpg(server.pid, signal.SIGKILL)
    pg = init(fail_open=False)
    assert ask_surely(client()) == "spent"
    until(lambda: len(Books(path).journals) <= 1)  # its own: the last of the killed may die a moment later
    pg.shutdown()
    assert seen["answered"] == CALLS - SERVERS["uvicorn"][2]
    books = Books(path)
    assert books.calls == {"ada": CALLS, "early": 1}
    assert books.left == ([], [])
