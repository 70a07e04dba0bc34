"""What was answered is counted, once, whatever happens to the process that answered it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from engine_values import ANSWER, CENT, call, plan

from paygent.ledgers.sqlite import SqliteLedger

HERE = Path(__file__).parent
# Python 3.12 and later warn of every fork in a process with threads; that is what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def start(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments), str(HERE)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def posted(path):
    """The events in the file by id, after checking that totals are their sum."""
    ledger = SqliteLedger(path)
    rows = ledger.events(limit=1_000_000)
    for user in {row.user_id for row in rows}:
        spent = sum(n for (scope, _), n in ledger.totals(user).items() if scope == "total_spend")
        assert spent == CENT * sum(row.user_id == user for row in rows)
    ledger.close()
    return {row.id for row in rows}


ENDS = """
import os, sys, signal, threading
sys.path.insert(0, sys.argv[3])
from engine_values import call, plan
from paygent import Paygent
pg = Paygent.init(db_path=sys.argv[1], auto_instrument=False)
pg.configure_plan("default", plan(1000))
for _ in range(25):
    call(pg)
ending = sys.argv[2]
if ending == "raise":
    raise RuntimeError("a bug of the app")
if ending == "_exit":
    os._exit(3)
"""


@pytest.mark.parametrize("ending", ["return", "raise", "_exit"])
def test_every_way_to_end_counts_everything(tmp_path, ending, init):
    """A process that returns, raises or is cut off leaves its calls to the ledger or to the next process."""
    path = tmp_path / "p.db"
    worker = start(ENDS, path, ending)
    worker.communicate(timeout=60)
    left = list((tmp_path / "p.db.journals").glob("*.journal"))
    assert bool(left) is (ending == "_exit")
    pg = init(db_path=path)
    pg.flush()
    assert round(pg.get_usage("ada").period_cost * 100) == 25


FORK = """
import json, os, sys, threading
sys.path.insert(0, sys.argv[2])
from engine_values import ANSWER, EXACT, call, plan
from paygent import Paygent

pg = Paygent.init(db_path=sys.argv[1], auto_instrument=False)
pg.configure_plan("default", plan(100_000))
pg.configure_plan("one", plan(1))
for user in ("parents", "childs"):
    pg.assign_plan(user, "one")
made, stop = [], threading.Event()


def work(user):
    while not stop.is_set():
        call(pg, user)
        made.append(user)


def in_flight():
    # the fork happens while this call is open: it is the parent's to settle, and nobody else's
    child = os.fork()
    if child == 0:
        forked.append(0)
    else:
        forked.append(child)
    return ANSWER


threads = [threading.Thread(target=work, args=(user,)) for user in ("ada", "bob", "cy")]
for thread in threads:
    thread.start()
forked = []
before = pg._meter.lease_id
pg.wrap(in_flight, user_id="parents", **EXACT)
if forked == [0]:
    for _ in range(30):
        call(pg, "childs_friend")
    call(pg, "childs")
    fresh = pg._meter.lease_id != before
    pg.shutdown()
    os._exit(0 if fresh else 9)
_, status = os.waitpid(forked[0], 0)
stop.set()
for thread in threads:
    thread.join()
pg.shutdown()
print(json.dumps({"status": status, "made": len(made)}))
"""


def test_a_fork_in_mid_traffic_counts_everything_once(tmp_path):
    """A child forked while calls run meters its own and settles none of its parent's; nothing is lost."""
    path = tmp_path / "p.db"
    worker = start(FORK, path)
    out, _ = worker.communicate(timeout=100)
    told = json.loads(out)
    assert told["status"] == 0
    ledger = SqliteLedger(path)
    users = [row.user_id for row in ledger.events(limit=1_000_000)]
    ledger.close()
    assert sum(user in ("ada", "bob", "cy") for user in users) == told["made"]
    assert [users.count(user) for user in ("parents", "childs", "childs_friend")] == [1, 1, 30]
    assert len(posted(path)) == len(users)
    assert not list((tmp_path / "p.db.journals").glob("*.journal"))


PARENT_DIES = """
import os, sys, signal, time
sys.path.insert(0, sys.argv[2])
from engine_values import call, plan
from paygent import Paygent
pg = Paygent.init(db_path=sys.argv[1], auto_instrument=False)
pg.configure_plan("default", plan(100_000))
for _ in range(10):
    call(pg)
child = os.fork()
if child == 0:
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep(60)
    os._exit(0)
time.sleep(60)
"""


def test_a_child_does_not_keep_its_dead_parents_journal(tmp_path, init):
    """While a forked child lives on, the calls of its killed parent are recovered by others."""
    path = tmp_path / "p.db"
    parent = start(PARENT_DIES, path)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait(30)
    try:
        pg = init(db_path=path)
        pg.flush()
        assert round(pg.get_usage("ada").period_cost * 100) == 10
    finally:
        os.kill(child, signal.SIGKILL)
        parent.stdout.close()


def test_a_child_begins_anew_whatever_fails(init, tmp_path, monkeypatch):
    """A ledger that cannot let go of its connection leaves the child without the parent's calls."""

    def fail():
        raise OSError("no descriptor")

    former, pg = init(), init(db_path=tmp_path / "second.db")
    for meter in (former._meter, pg._meter):  # the fault of one is not that of the other
        monkeypatch.setattr(meter.ledger, "forget_after_fork", fail)
    pg.configure_plan("default", plan(100))
    call(pg)
    child = os.fork()
    if child == 0:
        os._exit(0 if pg.pending_events == 0 and pg._meter.pid == os.getpid() else 9)
    _, status = os.waitpid(child, 0)
    assert status == 0


def test_a_forked_child_that_meters_nothing_leaves_nothing(tmp_path, init):
    """A child that makes no call opens no file, and its end does not touch the parent's."""
    pg = init()
    pg.configure_plan("default", plan(100))
    call(pg)
    child = os.fork()
    if child == 0:
        os._exit(0 if pg.pending_events == 0 else 9)
    _, status = os.waitpid(child, 0)
    assert status == 0
    assert call(pg) is ANSWER
    pg.flush()
    assert round(pg.get_usage("ada").period_cost * 100) == 2
