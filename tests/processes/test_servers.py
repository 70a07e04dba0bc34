"""Real web servers with several processes on one file: one cap, every answer counted, nothing left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from fleet import Books, ask_surely, client, environment

CALLS = 60
STOP_S_MAX = 10.0


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


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
    "uvicorn": (uvicorn, ("--workers", "2"), 2),
}


@contextlib.contextmanager
def serving(kind, path, **more):
    """Run a server; it is killed if it is still there in the end."""
    command, options, _ = SERVERS[kind]
    port = free_port()
    env = environment(APP_LEDGER=str(path), APP_CALLS=str(CALLS), APP_CALLS_AT_START="1", **more)
    server = subprocess.Popen(
        [sys.executable, *command(port, *options)], env=env, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        yield server, f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait(10)
        server.stderr.close()


def until_up(url):
    """Wait until the server answers; the first answer is a call."""
    ends_s = time.monotonic() + 30
    while True:
        try:
            return httpx.get(f"{url}/early", trust_env=False, timeout=10)
        except httpx.TransportError:
            if time.monotonic() > ends_s:
                raise
            time.sleep(0.05)


def spend(url, threads=8):
    """Ask until the cap is spent, from many clients; how often each answer came."""

    def one(_):
        seen = Counter()
        with httpx.Client(base_url=url, trust_env=False, timeout=30) as browser:
            while not seen["spent"] and seen.total() <= CALLS:
                seen[browser.get("/ada", headers={"connection": "close"}).text] += 1
        return seen

    with ThreadPoolExecutor(threads) as clients:
        return sum(clients.map(one, range(threads)), Counter())


def stop(server):
    """Ask the server to end, and wait for it as long as it may take."""
    server.send_signal(signal.SIGTERM)
    server.wait(STOP_S_MAX)


def until_recovered(path):
    """Wait until no other journal is there: the last of the killed may die a moment later."""
    ends_s = time.monotonic() + 20
    while len(Books(path).journals) > 1 and time.monotonic() < ends_s:
        time.sleep(0.1)


@pytest.mark.parametrize("kind", SERVERS)
def test_the_workers_of_a_server_share_one_cap(kind, llm, path):
    """All workers together answer what the cap covers; after SIGTERM all is counted, nothing is left."""
    with serving(kind, path) as (server, url):
        until_up(url)
        seen = spend(url)
        stop(server)
    assert seen["answered"] == CALLS - SERVERS[kind][2]
    books = Books(path)
    assert books.calls == {"ada": CALLS, "early": 1}
    assert books.left == ([], [])


def test_what_a_server_leaves_is_recovered(llm, path, init):
    """Workers that are ended without a chance to flush lose no answer: the next process counts them all."""
    with serving("uvicorn", path) as (server, url):
        until_up(url)
        seen = spend(url)
        os.killpg(server.pid, signal.SIGKILL)
    pg = init(fail_open=False)
    assert ask_surely(client()) == "spent"
    until_recovered(path)
    pg.shutdown()
    assert seen["answered"] == CALLS - SERVERS["uvicorn"][2]
    books = Books(path)
    assert books.calls == {"ada": CALLS, "early": 1}
    assert books.left == ([], [])
