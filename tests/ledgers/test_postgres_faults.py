import contextlib
import re
import threading
import time
import uuid

import psycopg
import pytest
from psycopg import errors

from paygent.core.events import encode
from paygent.ledger import GateRow, Job, LeaseRequest, LedgerError
from paygent.ledgers import _postgres_link, open_ledger
from paygent.ledgers._postgres_rows import got, put
from paygent.ledgers._postgres_transaction import Transaction
from paygent.ledgers.postgres import PostgresLedger
from paygent.testing._contract_values import Process, at_once, bucket_in, event, plan_json


@pytest.fixture
def make(postgres_url):
    made = []

    def make(url=postgres_url, now_us=None):
        made.append(PostgresLedger(url, now_us))
        return made[-1]

    yield make
    for ledger in made:
        ledger.close()


@pytest.fixture
def sql(postgres_server, postgres_url):
    """Run a statement in the test's database as superuser."""
    return lambda statement: postgres_server.execute(statement, postgres_url.rpartition("/")[2])


# -- the tables ----------------------------------------------------------------------------------------


def test_processes_may_make_the_tables_at_once(make):
    """Eight that find an empty database in the same moment all find a ledger in it."""
    new = []

    def run(_):
        ledger = make()
        new.append(ledger.settle([event(Process(ledger).ask(), 1)]))

    at_once(run, range(8))
    assert new == [1] * 8
    assert len(make().events()) == 8


def test_newer_tables_are_refused_and_left_alone(make, sql):
    """Tables that a newer version made are an error that says so."""
    make().plans()
    sql("UPDATE paygent.version SET version = 999")
    with pytest.raises(LedgerError, match="newer version"):
        make().settle(())
    assert sql("SELECT version FROM paygent.version") == [(999,)]


def test_tables_that_are_dropped_are_begun_anew(make, sql):
    """After the schema was dropped the ledger cannot be asked once, then begins anew with its plans."""
    ledger = make()
    config = plan_json(max_spend_per_period=1.0)
    ledger.put_plan("default", config)
    sql("DROP SCHEMA paygent CASCADE")
    with pytest.raises(LedgerError, match="does not exist"):
        Process(ledger).ask()
    assert ledger.plans() == {"default": config}


def test_a_role_that_may_not_create_is_told_so(make, sql, postgres_url):
    """A role without the right to make the schema gets an error; with a schema made for it, it works."""
    sql("CREATE ROLE app LOGIN PASSWORD 'unused'")
    try:
        ledger = make(postgres_url.replace("postgres@", "app@"))
        with pytest.raises(LedgerError, match="permission denied"):
            ledger.plans()
        sql("CREATE SCHEMA paygent AUTHORIZATION app")
        assert ledger.settle([event(Process(ledger).ask(), 1)]) == 1
        ledger.close()
    finally:
        sql("DROP OWNED BY app; DROP ROLE app")


def test_a_database_in_another_encoding_is_refused(postgres_server, make):
    """A database that cannot hold every text is refused when it is opened, with its encoding."""
    postgres_server.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        ledger = make(postgres_server.url("latin"))
        with pytest.raises(LedgerError, match="UTF8, not LATIN1"):
            ledger.plans()
    finally:
        postgres_server.drop_database(postgres_server.url("latin"))


def test_tables_do_not_grow_with_what_has_ended(make, sql):
    """Sessions and leases that ended long ago are forgotten; events and totals stay."""
    now = [1_700_000_000_000_000]
    ledger = make(now_us=lambda: now[0])
    for number in range(100):
        process = Process(ledger, f"user {number}")
        process.ask(session_id=f"chat {number}", events=[event(process.ask(), 1)])
        process.ask(need={"total_spend": 1})
        now[0] += 3_600_000_000
    counts = {
        table: sql(f"SELECT count(*) FROM paygent.{table}")[0][0]
        for table in ("sessions", "leases", "events")
    }
    assert counts["events"] == 100
    assert counts["leases"] <= 2
    assert counts["sessions"] <= 2 * 26


def test_looking_at_a_stranger_makes_no_account(make, sql):
    """Reading the state of a user who never called leaves no row behind."""
    ledger = make()
    assert Process(ledger).ask(begin_session=False).session is None
    assert sql("SELECT count(*) FROM paygent.accounts") == [(0,)]


# -- values --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "a", "\0", "\1", "\0\1\0", "\x010", "\x011", "a\0b\1c\x01\x01", "ü\0"])
def test_text_with_nul_comes_back(text):
    """What is stored holds no NUL, reads back as it was, and no two texts are stored alike."""
    assert "\0" not in put(text)
    assert got(put(text)) == text
    assert (put(text) == text) == (not {"\0", "\1"} & set(text))


def test_nul_anywhere_is_stored(make):
    """A NUL in any text of plans, accounts, jobs, decisions and events comes back."""
    ledger, odd = make(), "a\0\1b"
    ledger.put_plan(odd, '{"x": "a\\u0000"}')
    ledger.put_account(odd, {"plan": odd})
    job = Job(odd, odd, odd, odd, odd, {odd: odd})
    ledger.put_job(job)
    ledger.link_job(odd, odd, odd + odd)
    gate = GateRow(odd, odd, 1, odd, "ok", odd, 0.0, 0.0, 0.0, odd, 0, odd, {odd: odd}, 1)
    ledger.record_gates([gate])
    reply = Process(ledger, odd, lease_id=odd).ask(session_id=odd, need={"total_spend": 1})
    row = event(reply, 1, model=odd, description=odd, metadata={odd: odd}, tool_calls=(odd,))
    ledger.settle([row], close=[odd])
    assert list(ledger.plans()) == [odd]
    assert (reply.account.plan, reply.plan.name) == (odd, odd)
    assert ledger.job(odd, odd) == ledger.job(odd, odd + odd) == job
    assert ledger.gate_events(odd) == [gate]
    assert [encode(found) for found in ledger.events(odd)] == [encode(row)]


def test_what_no_database_takes_is_no_ledger_error(make):
    """An amount beyond what can be stored is a fault of its own, and the ledger goes on."""
    ledger = make()
    reply = Process(ledger).ask()
    with pytest.raises(psycopg.DataError):
        ledger.settle([event(reply, 2**70)])
    with pytest.raises(UnicodeEncodeError):
        ledger.settle([event(reply, 1, description="\ud800")])
    assert ledger.settle([event(reply, 1)]) == 1


def test_the_longest_names_fit(make):
    """A user, a session and a model of 512 characters of four bytes each are stored and found."""
    ledger, long = make(), "".join(chr(0x10000 + number * 7919 % 0xF0000) for number in range(512))
    process = Process(ledger, long)
    reply = process.ask(session_id=long)
    process.ask(session_id=long, events=[event(reply, 3, tokens=1, model=long)])
    assert process.ask(session_id=long).posted[bucket_in(reply)] == 3


# -- locks and time ------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [160_000, 180_000])
def test_an_idle_transaction_is_ended_by_the_server(make, monkeypatch, version):
    """Whether the server bounds transactions or only idle ones, one that stands still loses its locks."""
    monkeypatch.setattr(_postgres_link, "_knows_transaction_timeout", lambda connection: version >= 170_000)
    for name in ("_LIMIT_TIME", "_LIMIT_TIME_BEFORE_17"):
        limits = re.sub(r"'[34]s'", "'200ms'", getattr(_postgres_link, name))
        monkeypatch.setattr(_postgres_link, name, limits)
    ledger, stalled = make(), make()
    ledger.put_account("ada", {})

    def stall(connection):
        Transaction(connection, None).begin({"ada"}, {"ada"}, (), ())
        ends_s = time.monotonic() + 20
        while not waited and time.monotonic() < ends_s:
            with contextlib.suppress(LedgerError):  # its own patience ends too
                waited.append(Process(ledger).ask())

    waited = []
    with contextlib.suppress(LedgerError):
        stalled._link.run(stall)
    assert len(waited) == 1


def test_steps_over_the_same_users_never_wait_crosswise(make):
    """Processes that name the same users in different order at once all get through."""
    users = [f"user {number}" for number in range(12)]
    failed = []

    def run(names):
        ledger = make()
        for _ in range(15):
            need = {"begin_session": True, "need": {"total_spend": 1}}
            requests = [LeaseRequest(name, str(uuid.uuid4()), 1, **need) for name in names]
            try:
                replies = ledger.lease(requests)
                ledger.settle([event(reply, 1) for reply in reversed(replies)])
            except Exception as error:  # noqa: BLE001  # shown by the test
                failed.append(error)

    orders = [users, users[::-1], users[6:] + users[:6], users[::2] + users[1::2]]
    threads = [threading.Thread(target=run, args=(order,)) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert len(make().events(limit=10_000)) == 4 * 15 * 12


def test_a_step_that_the_server_ends_for_another_is_repeated(make):
    """A deadlock or a failed serialization that hits an operation is not seen by its caller."""
    ledger, tries = make(), []

    def operation(connection):
        tries.append(connection)
        if len(tries) < 3:
            raise [errors.DeadlockDetected, errors.SerializationFailure][len(tries) - 1]
        return 7

    assert ledger._link.run(operation) == 7


def test_a_fault_within_a_transaction_leaves_nothing_of_it(make):
    """A transaction that fails half way is undone, and the next one works."""
    ledger = make()

    def fail(connection):
        connection.execute("BEGIN")
        connection.execute("INSERT INTO paygent.plans VALUES ('a', 'b', 'c')")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        ledger._link.run(fail)
    assert ledger.plans() == {}


def test_a_connection_that_the_server_closed_is_replaced_unnoticed(make, sql):
    """A connection ended by an administrator or an idle limit costs no error: the next trip opens another."""
    ledger = make()
    ledger.put_plan("a", plan_json())
    ended = sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'paygent'")
    assert (True,) in ended
    assert list(ledger.plans()) == ["a"]


def test_a_database_that_only_reads_is_an_error_and_then_works(make, postgres_server, postgres_url):
    """A standby refuses to write: that is a LedgerError, and a new connection finds the primary."""
    ledger = make()
    ledger.plans()
    name = postgres_url.rpartition("/")[2]
    postgres_server.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    ledger.close()
    with pytest.raises(LedgerError, match="read-only"):
        ledger.put_plan("a", plan_json())
    postgres_server.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
    ledger.put_plan("a", plan_json())
    assert list(ledger.plans()) == ["a"]


def test_a_socket_and_options_of_the_driver(make, postgres_server, postgres_url):
    """A URL without a host names the folder of a socket, and options of libpq are passed on."""
    name = postgres_url.rpartition("/")[2]
    url = f"postgresql://postgres@/{name}?host={postgres_server.folder}&port={postgres_server.port}"
    ledger = make(url + "&application_name=shop")
    ledger.put_plan("a", plan_json())
    names = ledger._link.run(lambda connection: connection.execute("SHOW application_name").fetchall())
    assert names == [("shop",)]
    assert list(make().plans()) == ["a"]


def test_nothing_is_asked_before_it_is_used():
    """Making a ledger opens no connection."""
    open_ledger("postgresql://127.0.0.1:1/nowhere").close()
