"""What befalls a process in mid-traffic: no event is lost, no caller hears of it, the operator is told."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import datetime, timedelta, timezone

import pytest
import time_machine
from fleet import Books, ask, ask_surely, client, environment, plan, settle

CAP = 100_000
# Python 3.12 and later warn of every fork in a process with threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


class Traffic:
    """Threads that call until they are told to stop; whatever a call raises is kept."""

    def __init__(self, threads=4, latency_s=0.001):
        self.sdk = client(latency_s)
        self.seen, self.errors = Counter(), []
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(f"user-{n}",)) for n in range(threads)]

    def run(self, user):
        while not self.stopping.is_set():
            try:
                outcome = ask(self.sdk, user)
            except Exception as error:  # noqa: BLE001  # shown by the test
                self.errors.append(error)
            else:
                self.seen[user] += outcome == "answered"

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *exc_info):
        self.stopping.set()
        for thread in self.threads:
            thread.join(30)

    def until(self, calls):
        """Wait until so many more calls are answered."""
        goal = self.seen.total() + calls
        while self.seen.total() < goal and not self.errors:
            time.sleep(0.001)


def start(init, **options):
    pg = init(**options)
    pg.configure_plan("default", plan(CAP))
    return pg


def test_a_second_init_in_mid_traffic_loses_nothing(init, path):
    """While one instance replaces another, three times, every answered call is counted by either of them."""
    start(init)
    with Traffic() as traffic:
        for _ in range(3):
            traffic.until(50)
            start(init)
        traffic.until(50)
    init().shutdown()
    assert traffic.errors == []
    assert Books(path).calls == traffic.seen


def test_a_second_init_opens_no_gap_in_the_cap(init, path):
    """A user who is spent stays refused in the moment in which one instance replaces another."""
    pg = init(fail_open=False)  # a disk that is slow for a moment is another story
    pg.configure_plan("default", plan(0))
    with Traffic() as traffic:
        for _ in range(5):
            time.sleep(0.02)
            init(fail_open=False)
    assert traffic.seen.total() == 0
    init().shutdown()
    assert Books(path).calls == {}


def test_a_restart_goes_on_where_the_process_stopped(init, path):
    """Five instances one after the other answer together what the cap covers."""
    sdk, answered = client(), 0
    for _ in range(5):
        pg = init(fail_open=False)
        pg.configure_plan("default", plan(23))
        answered += sum(ask_surely(sdk) == "answered" for _ in range(5))
        pg.shutdown()
    assert answered == 23
    assert Books(path).calls == {"ada": 23}


def test_a_clock_that_jumps_back_an_hour_changes_no_cap(init, path):
    """Before, after the jump and after its correction the answers together are what the cap covers."""
    sdk = client()
    now = datetime(2026, 5, 5, 12, tzinfo=timezone.utc)
    with time_machine.travel(now, tick=True) as clock:
        pg = init(fail_open=False)
        pg.configure_plan("default", plan(60))
        seen = [ask_surely(sdk) for _ in range(20)]
        for hours in (-1, 1):
            clock.shift(timedelta(hours=hours))
            seen += [ask_surely(sdk) for _ in range(30)]
            settle(pg)
        pg.shutdown()
    assert Counter(seen) == {"answered": 60, "spent": 20}
    books = Books(path)
    assert books.calls == {"ada": 60}
    assert books.left == ([], [])


def until(condition):
    """Wait for what the ledger's thread is about to do."""
    ends_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends_s, "it did not happen"
        time.sleep(0.02)


HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
"""


def test_a_file_that_another_program_locks_for_five_seconds(init, path, caplog):
    """Calls go on all the while, the log and queue_stats say so, and then everything is in the file."""
    caplog.set_level(logging.INFO)
    pg = start(init)
    with Traffic(latency_s=0.01) as traffic:
        traffic.until(20)
        pipe, command = subprocess.PIPE, [sys.executable, "-c", HOLDER, str(path)]
        program = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment())
        program.stdout.readline()
        until(lambda: pg.queue_stats["degraded"])
        traffic.until(400)
        stats = pg.queue_stats
        program.communicate(timeout=60)  # which lets go of the file
        traffic.until(20)
        until(lambda: not pg.queue_stats["degraded"])
    assert traffic.errors == []
    assert stats["degraded"]
    assert stats["pending"] > 0
    assert "locked" in stats["last_error"]
    assert not pg.queue_stats["degraded"]
    pg.shutdown()
    assert pg.queue_stats["dropped"] == 0
    assert Books(path).calls == traffic.seen
    assert "the ledger is away" in caplog.text
    assert "answers again" in caplog.text


FULL = """
import json, resource, signal, sys
from fleet import ask, client, plan, settle
from paygent import Paygent

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
unlimited = resource.RLIM_INFINITY
pg = Paygent.init(db_path=sys.argv[1], flush_interval=0.1)
pg.configure_plan("default", plan(100_000))
sdk = client()
seen = [ask(sdk)]
pg.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (0, unlimited))
seen += [ask(sdk) for _ in range(300)]
pg.flush()
full = pg.queue_stats
resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))
seen += [ask(sdk) for _ in range(100)]
settle(pg)
pg.shutdown()
print(json.dumps({"answered": seen.count("answered"), "full": full, "after": pg.queue_stats}))
"""


def test_a_full_disk_is_said_in_the_log_and_in_the_stats(path):
    """While neither file nor journal can grow calls go on, both are said, and later all are there."""
    command = [sys.executable, "-c", FULL, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True, timeout=100)
    told = json.loads(done.stdout)
    assert told["answered"] == 401
    assert (told["full"]["degraded"], told["full"]["dropped"]) == (True, 0)
    assert told["full"]["pending"] > 0
    assert told["full"]["last_error"]
    assert "the ledger is away" in done.stderr
    assert "cannot be written" in done.stderr
    assert (told["after"]["pending"], told["after"]["dropped"]) == (0, 0)
    assert Books(path).calls == {"ada": 401}


def test_a_fork_of_a_ledger_in_memory_is_one_of_its_own(init):
    """A forked child goes on with a copy of the ledger; what it spends its parent never hears of."""
    pg = init(ledger="memory://")
    pg.configure_plan("default", plan(10))
    sdk = client()
    assert [ask(sdk) for _ in range(4)] == ["answered"] * 4
    pg.flush(give_back=True)
    child = os.fork()
    if child == 0:
        made = sum(ask(sdk) == "answered" for _ in range(20))
        os._exit(made)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 6
    assert Counter(ask(sdk) for _ in range(20)) == {"answered": 6, "spent": 14}
