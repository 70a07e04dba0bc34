import multiprocessing
import os
import resource
import sqlite3
import subprocess
import sys
import threading

import pytest

from paygent.ledger import LedgerError
from paygent.ledgers import open_ledger
from paygent.ledgers.sqlite import SqliteLedger
from paygent.testing._contract_values import Process, event, plan_json

# Python 3.12 and later warn of every fork in a process with threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
spawned = multiprocessing.get_context("spawn")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "p.db"


@pytest.fixture
def make(path):
    made = []

    def make():
        made.append(SqliteLedger(path))
        return made[-1]

    yield make
    for ledger in made:
        ledger.close()


def spoil(path):
    """Overwrite the file, as a failing disk would, with everything in it."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    path.write_bytes(b"\xff" * path.stat().st_size)


def _first_event(path, barrier, results):
    ledger = SqliteLedger(path)
    barrier.wait(30)
    try:
        results.put(ledger.settle([event(Process(ledger).ask(), 1)]))
    except Exception as error:  # noqa: BLE001  # shown by the test
        results.put(repr(error))


def test_processes_may_create_the_file_at_once(path, make):
    """Four processes that open a new file in the same moment all find a ledger in it."""
    barrier, results = spawned.Barrier(4), spawned.Queue()
    processes = [spawned.Process(target=_first_event, args=(path, barrier, results)) for _ in range(4)]
    for process in processes:
        process.start()
    outcomes = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(30)
    assert outcomes == [1, 1, 1, 1]
    assert len(make().events()) == 4


def test_a_newer_file_is_refused_and_left_alone(path, make):
    """A file that a newer version wrote is an error that says so, and its bytes stay."""
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE tomorrow (a)")
        connection.execute("PRAGMA user_version = 999")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="newer version"):
        make().settle(())
    assert path.read_bytes() == before


def test_a_file_that_another_program_locks_is_an_error_and_then_works(path, make):
    """While another program writes, the ledger cannot be asked; afterwards it can, on the same object."""
    ledger = make()
    ledger.put_plan("a", plan_json())
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerError, match="locked"):
        ledger.put_plan("b", plan_json())
    assert list(ledger.plans()) == ["a"]
    other.execute("ROLLBACK")
    other.close()
    ledger.put_plan("b", plan_json())
    assert list(ledger.plans()) == ["a", "b"]


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    """Where the folder cannot be made the ledger cannot be asked; it works as soon as it can."""
    blocker = tmp_path / "file"
    blocker.write_text("")
    ledger = SqliteLedger(blocker / "p.db")
    for ask in (ledger.plans, lambda: ledger.settle(())):
        with pytest.raises(LedgerError, match=r"p\.db"):
            ask()
    blocker.unlink()
    assert ledger.settle(()) == 0
    ledger.close()


def test_a_read_only_file_is_an_error(path, make):
    """A database that cannot be written is a LedgerError for a write, not a crash."""
    make().put_plan("a", plan_json())
    code = (
        "import os, sys; from pathlib import Path\n"
        "from paygent.ledgers.sqlite import SqliteLedger; from paygent.ledger import LedgerError\n"
        "path = Path(sys.argv[1])\n"
        "import sqlite3; real = sqlite3.connect\n"
        "sqlite3.connect = lambda file, **more: real(f'file:{file}?mode=ro', uri=True, **more)\n"
        "try: SqliteLedger(path).put_plan('b', '{}')\n"
        "except LedgerError as error: print('LedgerError', error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("LedgerError")
    assert "readonly" in done.stdout


def _fill(path, results):
    ledger = SqliteLedger(path)
    reply = Process(ledger).ask()
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    settled, failed = 0, 0
    for _ in range(40):
        rows = [event(reply, 1, description="x" * 1000) for _ in range(20)]
        try:
            settled += ledger.settle(rows)
        except LedgerError:
            failed += 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    settled += ledger.settle([event(reply, 1)])
    results.put((settled, failed, sum(ledger.totals("ada").values())))


def test_a_full_disk_is_an_error_and_loses_nothing_that_was_settled(path):
    """While the file cannot grow settling fails as a whole; what succeeded is all there afterwards."""
    results = spawned.Queue()
    process = spawned.Process(target=_fill, args=(path, results))
    process.start()
    settled, failed, total = results.get(timeout=60)
    process.join(30)
    assert failed > 0
    ledger = SqliteLedger(path)
    assert len(ledger.events(limit=10_000)) == settled
    assert total == 3 * settled  # period, session and cost of the model; no tokens
    ledger.close()


def test_a_corrupt_file_is_set_aside(path, make, caplog):
    """A file that is no database is kept under a name that the log tells, and a new one is begun."""
    path.write_bytes(b"this is not a database at all" * 1000)
    ledger = make()
    with pytest.raises(LedgerError):
        ledger.settle(())
    assert ledger.settle(()) == 0
    (aside,) = path.parent.glob("p.db.corrupt-*[0-9]")
    assert aside.read_bytes().startswith(b"this is not a database")
    assert aside.name in caplog.text


def test_a_file_that_breaks_while_in_use_is_set_aside(path, make):
    """A file that is spoilt under a ledger is replaced, and the new one has the process's plans."""
    ledger = make()
    config = plan_json(max_spend_per_period=1.0)
    ledger.put_plan("default", config)
    ledger.settle([event(Process(ledger).ask(), 1)])
    ledger.close()
    spoil(path)
    with pytest.raises(LedgerError):
        ledger.events()
    assert ledger.plans() == {"default": config}
    assert Process(ledger).hold(1).denied is None
    assert len(list(path.parent.glob("p.db.corrupt-*[0-9]"))) == 1


def test_processes_that_find_a_file_corrupt_set_it_aside_once(path, make):
    """The good file that one process begins is not set aside by another that saw the broken one."""
    first, second = make(), make()
    first.put_plan("default", plan_json())
    second.plans()
    first.close()
    spoil(path)
    with pytest.raises(LedgerError):
        first.settle(())
    first.settle([event(Process(first).ask(), 5)])
    assert len(second.events()) == 1
    second.settle([event(Process(second).ask(), 5)])
    assert len(first.events()) == 2
    (aside,) = path.parent.glob("p.db.corrupt-*[0-9]")
    assert aside.with_name(aside.name + "-wal").exists()
    assert aside.with_name(aside.name + "-shm").exists()


def test_a_file_that_is_removed_is_begun_anew(path, make):
    """A ledger never writes into a file that is no longer at its path."""
    ledger = make()
    ledger.put_plan("default", plan_json())
    for file in path.parent.glob("p.db*"):
        if file.is_file():
            file.unlink()
    ledger.settle([event(Process(ledger).ask(), 5)])
    assert len(make().events()) == 1
    assert list(make().plans()) == ["default"]


def test_what_no_database_takes_is_no_ledger_error(make):
    """An amount beyond what can be stored is a fault of its own, and the ledger goes on."""
    ledger = make()
    reply = Process(ledger).ask()
    with pytest.raises(OverflowError):
        ledger.settle([event(reply, 2**70)])
    with pytest.raises(UnicodeEncodeError):
        ledger.settle([event(reply, 1, description="\ud800")])
    assert ledger.settle([event(reply, 1)]) == 1


def test_nothing_is_opened_before_it_is_used(tmp_path):
    """Making a ledger touches no file."""
    open_ledger(f"sqlite:///{tmp_path / 'a' / 'p.db'}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///", "sqlite://host/p.db"[:9] + "p.db", "oracle://x", "", "p.db"]
)
def test_a_ledger_that_cannot_be_meant_is_refused(url):
    """A URL without a path or of an unknown kind is a ValueError that quotes it."""
    with pytest.raises(ValueError, match="ledger="):
        open_ledger(url)


def test_sqlite_urls_name_files(tmp_path, monkeypatch):
    """Three slashes are a relative path, four an absolute one, and a tilde is the home."""
    monkeypatch.setenv("HOME", "/far")
    assert str(open_ledger("sqlite:///a/p.db").path) == "a/p.db"
    assert str(open_ledger("sqlite:////var/p.db").path) == "/var/p.db"
    assert str(open_ledger("sqlite:///~/p.db").path) == "/far/p.db"


def test_tables_do_not_grow_with_what_has_ended(path):
    """Sessions and leases that ended long ago are forgotten; events and totals stay."""
    now = [1_000_000_000_000_000]
    ledger = SqliteLedger(path, lambda: now[0])
    for number in range(200):
        process = Process(ledger, f"user {number}")
        process.ask(session_id=f"chat {number}", events=[event(process.ask(), 1)])
        process.ask(need={"total_spend": 1})
        now[0] += 3_600_000_000
    with sqlite3.connect(path) as connection:
        counts = {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("sessions", "leases", "events")
        }
    connection.close()
    ledger.close()
    assert counts["events"] == 200
    assert counts["leases"] <= 2
    assert counts["sessions"] <= 2 * 26


def test_a_forked_child_opens_its_own_connection(path, make):
    """A child neither uses nor closes what its parent has open, and both go on."""
    ledger = make()
    ledger.settle([event(Process(ledger).ask(), 1)])
    child = os.fork()
    if child == 0:
        ledger.forget_after_fork()
        ledger.settle([event(Process(ledger).ask(), 1)])
        ledger.close()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0
    ledger.settle([event(Process(ledger).ask(), 1)])
    assert len(ledger.events()) == 3


def test_the_file_lock_is_freed_by_death(path, make):
    """A process that dies within a transaction leaves neither a lock nor half of its rows."""
    ledger = make()
    reply = Process(ledger).ask()
    child = os.fork()
    if child == 0:
        ledger.forget_after_fork()
        with ledger._transaction() as rows:
            rows.insert_events([event(reply, 1)])
            os._exit(0)
    os.waitpid(child, 0)
    assert ledger.settle([event(reply, 1)]) == 1
    assert len(ledger.events()) == 1


def test_a_fault_within_a_transaction_leaves_nothing_of_it(make):
    """A transaction that fails half way is undone, and the next one works."""
    ledger = make()

    def fail():
        with ledger._transaction() as rows:
            rows.execute("INSERT INTO plans VALUES ('a', 'b', 'c')")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert ledger.plans() == {}
    ledger.put_plan("a", plan_json())
    assert list(ledger.plans()) == ["a"]


def test_readers_do_not_wait_for_a_writer(path, make):
    """What is stored can be read while another process is within a transaction."""
    writer, reader = make(), make()
    writer.put_plan("a", plan_json())
    reader.plans()
    found = []
    with writer._transaction() as rows:
        rows.execute("INSERT INTO plans VALUES ('b', 'b', '{}')")
        thread = threading.Thread(target=lambda: found.append(list(reader.plans())))
        thread.start()
        thread.join(10)
    assert found == [["a"]]
