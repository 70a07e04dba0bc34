"""The ledger is away: calls go on within a bound, nothing is lost, and all is posted when it returns."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from engine_values import ANSWER, CENT, EXACT, call, plan

from paygent import PaygentLimitExceeded, PaygentUnavailable
from paygent.ledgers.sqlite import SqliteLedger

HERE = Path(__file__).parent


@pytest.fixture
def path(tmp_path):
    return tmp_path / "p.db"


@pytest.fixture
def lock(path):
    """Another program that locks the file for writing, until it is told to stop."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)

    class Lock:
        def __enter__(self):
            connection.execute("BEGIN IMMEDIATE")

        def __exit__(self, *exc_info):
            connection.execute("ROLLBACK")

    yield Lock()
    connection.close()


def settle(pg):
    """Deliver everything, as the next ticks would; an error if the ledger is still away."""
    pg._meter.exporter.flush().result(30)


def cents(path, user="ada"):
    """What the file has of a user: the number of events, after checking their total."""
    ledger = SqliteLedger(path)
    rows = ledger.events(user, limit=100_000)
    total = sum(n for (scope, _), n in ledger.totals(user).items() if scope == "total_spend")
    ledger.close()
    assert total == CENT * len(rows)
    return len(rows)


def calls_until_refused(pg, most=1000):
    for made in range(most):
        try:
            call(pg)
        except PaygentLimitExceeded:
            return made
    return most


def test_calls_go_on_while_another_program_holds_the_file(init, path, lock, caplog):
    """With the file locked no call fails, one warning is logged, and all calls are posted afterwards."""
    pg = init()
    pg.configure_plan("default", plan(1000))
    call(pg)
    with lock:
        for _ in range(30):
            call(pg)
            call(pg, "bob")
        pg.flush()
        assert pg.queue_stats["degraded"]
        assert pg.queue_stats["pending"] >= 59
        assert "locked" in pg.queue_stats["last_error"]
    settle(pg)
    stats = pg.queue_stats
    assert (stats["degraded"], stats["pending"], stats["dropped"]) == (False, 0, 0)
    assert (cents(path), cents(path, "bob")) == (31, 30)
    assert caplog.text.count("the ledger is away") == 1


def test_a_ledger_that_was_never_there(init, tmp_path):
    """Where the file cannot even be made, calls go on by the plans of this process and are posted later."""
    blocker = tmp_path / "file"
    blocker.write_text("")
    pg = init(db_path=blocker / "p.db")
    pg.configure_plan("default", plan(20))
    assert calls_until_refused(pg) == 20
    assert pg.queue_stats["degraded"]
    blocker.unlink()
    settle(pg)
    assert pg.queue_stats["dropped"] == 0
    assert cents(blocker / "p.db") == 20
    assert calls_until_refused(pg) == 0


def test_degraded_a_process_keeps_to_the_whole_limit(init, path, lock):
    """Without the ledger a process admits no more than the limit leaves by what was last known."""
    pg = init()
    pg.configure_plan("default", plan(100))
    for _ in range(40):
        call(pg)
    with lock:
        assert calls_until_refused(pg) == 60
    settle(pg)
    assert cents(path) == 100


def test_a_spent_user_stays_refused(init, lock):
    """A user whom the ledger last called spent is refused while it is away."""
    pg = init()
    pg.configure_plan("default", plan(5))
    assert calls_until_refused(pg) == 5
    with lock:
        assert calls_until_refused(pg) == 0


def test_a_model_outside_the_plan_stays_refused(init, lock):
    """Of a user never seen, too, a model that the plan does not list is refused while the ledger is away."""
    pg = init()
    pg.configure_plan("default", plan(5))
    with lock, pytest.raises(PaygentLimitExceeded) as refused:
        call(pg, model="x")
    assert refused.value.guard_result.gate_reason == "model_limit:x"


def test_without_fail_open_the_lease_is_spent_and_then_it_is_an_error(init, lock):
    """With fail_open=False what is leased is spent, and then PaygentUnavailable says why."""
    pg = init(fail_open=False)
    pg.configure_plan("default", plan(100))
    call(pg)

    def spend():
        for _ in range(100):
            call(pg)

    with lock, pytest.raises(PaygentUnavailable):
        spend()


TOLD = """
import asyncio, sqlite3, sys
from engine_values import EXACT, call, plan
from paygent import Paygent, PaygentUnavailable

async def answer():
    raise AssertionError("this call is refused")

async def main():
    try:
        await pg.awrap(answer(), user_id="ada", **EXACT)
    except PaygentUnavailable:
        print("told")

pg = Paygent.init(db_path=sys.argv[1], auto_instrument=False, fail_open=False)
pg.configure_plan("default", plan(100))
call(pg, "bob")
lock = sqlite3.connect(sys.argv[1], isolation_level=None)
lock.execute("BEGIN IMMEDIATE")
asyncio.run(main())
lock.close()
"""


def test_an_async_call_that_is_told_so_is_not_told_of_again(path):
    """The error of a call that waited for the ledger is its caller's alone: asyncio logs none of its own."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(HERE)])}
    script = [sys.executable, "-c", TOLD, str(path)]
    done = subprocess.run(script, capture_output=True, text=True, env=env, check=True, timeout=60)
    assert done.stdout == "told\n"
    assert "never retrieved" not in done.stderr


def test_degraded_threads_keep_to_the_limit(init, path, lock):
    """Many threads of a degraded process together admit no more than the limit leaves."""
    pg = init()
    pg.configure_plan("default", plan(50))
    call(pg)
    made = []
    with lock:
        threads = [threading.Thread(target=lambda: made.append(calls_until_refused(pg))) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    settle(pg)
    assert sum(made) == 49
    assert cents(path) == 50


def test_memory_is_bounded_and_the_journal_keeps_the_rest(init, path, lock):
    """Beyond max_queue_size events leave memory for the journal, and come back from there."""
    pg = init(max_queue_size=50, max_batch_size=10)
    pg.configure_plan("default", plan(1000))
    call(pg)
    pg.flush()
    with lock:
        for _ in range(500):
            call(pg)
        pg.flush()
        in_memory = sum(len(wallet.events) for wallet in pg._meter.wallets.values())
        assert in_memory <= 60
        assert pg.pending_events == 500
    settle(pg)
    stats = pg.queue_stats
    assert (stats["pending"], stats["dropped"]) == (0, 0)
    assert cents(path) == 501
    assert calls_until_refused(pg) == 499


def test_what_neither_memory_nor_journal_can_keep_is_counted(init, tmp_path):
    """Without a journal the events beyond max_queue_size are dropped, counted, and the rest is posted."""
    blocker = tmp_path / "file"
    blocker.write_text("")
    pg = init(db_path=blocker / "p.db", max_queue_size=50, max_batch_size=10)
    pg.configure_plan("default", plan(1000))
    for _ in range(200):
        call(pg)
    pg.flush()
    dropped = pg.queue_stats["dropped"]
    assert 140 <= dropped <= 150
    blocker.unlink()
    settle(pg)
    assert cents(blocker / "p.db") == 200 - dropped


def test_shutting_down_while_the_ledger_is_away_loses_nothing(init, path, lock):
    """What could not be delivered at the end is in the journal, and the next instance delivers it."""
    pg = init()
    pg.configure_plan("default", plan(1000))
    call(pg)
    with lock:
        for _ in range(20):
            call(pg)
        pg.shutdown(timeout=1)
    pg = init()
    call(pg)
    settle(pg)
    assert cents(path) == 22


def test_changes_made_meanwhile_arrive_later(init, path, lock):
    """Plans and assignments made while the ledger is away are stored in order once it is back."""
    pg = init()
    pg.configure_plan("default", plan(1000))
    call(pg)
    with lock:
        pg.configure_plan("pro", plan(10))
        pg.assign_plan("ada", "pro")
        pg.configure_plan("pro", plan(3))
    settle(pg)
    with contextlib.closing(SqliteLedger(path)) as ledger:
        assert sorted(ledger.plans()) == ["default", "pro"]
    assert calls_until_refused(pg) == 2


def test_a_corrupt_file_loses_no_call_that_is_made_from_then_on(init, path):
    """With the file spoilt in mid-traffic calls go on, a new file is begun, and they are in it."""
    pg = init()
    pg.configure_plan("default", plan(1000))
    call(pg)
    pg.flush()
    pg._meter.exporter.call(lambda ledger: ledger.close()).result(10)
    path.write_bytes(b"\xff" * 50_000)
    for name in ("p.db-wal", "p.db-shm"):
        path.with_name(name).unlink(missing_ok=True)
    for _ in range(25):
        call(pg)
    pg.flush()
    settle(pg)
    assert cents(path) == 25
    assert len(list(path.parent.glob("p.db.corrupt-*[0-9]"))) == 1
    assert calls_until_refused(pg) <= 975


FULL = """
import resource, signal, sys
sys.path.insert(0, sys.argv[2])
from engine_values import call, plan
from paygent import Paygent
pg = Paygent.init(db_path=sys.argv[1], auto_instrument=False)
pg.configure_plan("default", plan(100_000))
call(pg)
pg.flush()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
for _ in range(3000):
    call(pg)
pg.flush()
print(pg.queue_stats["degraded"], pg.queue_stats["last_error"])
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
pg._meter.exporter.flush().result(30)
print(pg.queue_stats)
pg.shutdown()
"""


@pytest.mark.parametrize("room", [0, 100_000, 300_000])
def test_a_full_disk_loses_nothing(path, room):
    """While no file can grow calls go on, and once there is room again all of them are posted."""
    script = [sys.executable, "-c", FULL, str(path), str(HERE), str(room)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(script, capture_output=True, text=True, env=env, check=True, timeout=100)
    assert "'pending': 0" in done.stdout
    assert "'dropped': 0" in done.stdout
    assert done.stdout.startswith("True")
    assert cents(path) == 3001


STOPPED = """
import os, signal, sys
from pathlib import Path
from paygent.ledgers.sqlite import SqliteLedger
ledger = SqliteLedger(Path(sys.argv[1]))
with ledger._transaction():
    print("inside", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_a_process_that_stopped_within_a_transaction_holds_up_nobody(init, path):
    """While a stopped process keeps the file locked, calls of others are made and then posted."""
    pg = init()
    pg.configure_plan("default", plan(1000))
    call(pg)
    pg.flush()
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    stopped = subprocess.Popen([sys.executable, "-c", STOPPED, str(path)], stdout=subprocess.PIPE, env=env)
    assert stopped.stdout.readline() == b"inside\n"
    try:
        for user in ("ada", "bob", "cy"):  # each of them would wait for ever if any did
            for _ in range(20):
                call(pg, user)
        assert pg.queue_stats["degraded"]
    finally:
        stopped.send_signal(signal.SIGKILL)
        stopped.wait(30)
        stopped.stdout.close()
    settle(pg)
    assert [cents(path, user) for user in ("ada", "bob", "cy")] == [21, 20, 20]


def test_a_call_in_flight_outlives_the_outage(init, path, lock):
    """A call that began before the ledger went away is posted, once, after it is back."""
    pg = init()
    pg.configure_plan("default", plan(10))

    def slow():
        lock.__enter__()
        return ANSWER

    pg.wrap(slow, user_id="ada", **EXACT)
    pg.flush()
    lock.__exit__()
    settle(pg)
    assert cents(path) == 1


def test_two_outages_are_told_apart(init, lock, caplog):
    """Each time the ledger goes away and comes back is logged once, and calls go on throughout."""
    caplog.set_level("INFO")
    pg = init()
    pg.configure_plan("default", plan(1000))
    for _ in range(2):
        call(pg)
        with lock:
            for _ in range(70):
                call(pg)
            pg.flush()
        settle(pg)
    assert caplog.text.count("the ledger is away") == 2
    assert caplog.text.count("answers again") == 2
