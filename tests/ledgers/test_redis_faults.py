import contextlib
import json
import re
import threading
import time

import pytest
from ledger_fleet import CENT, Proxy, call, plan, settle

from paygent import Paygent, PaygentLimitExceeded, PaygentUnavailable
from paygent.ledger import LedgerError
from paygent.ledgers import _redis_keys as keys
from paygent.ledgers import open_ledger
from paygent.ledgers._redis_transaction import Transaction
from paygent.ledgers.redis import TRIES, RedisLedger
from paygent.testing._contract_values import Process, bucket_in, event, plan_json
from paygent.testing.clock import FakeClock

DAY_S = 86_400


@pytest.fixture
def make(redis_url):
    made = []

    def make(url=redis_url, now_us=None):
        made.append(RedisLedger(url, now_us))
        return made[-1]

    yield make
    for ledger in made:
        ledger.close()


@pytest.fixture
def limited(make):
    """A ledger with a cap of 1 000 nano-dollars, and an event of 400."""
    ledger = make()
    ledger.put_plan("default", plan_json(max_spend_per_period=1e-6, pre_call_estimate=True))
    process = Process(ledger)
    process.ask(events=[event(process.ask(), 400)])
    return ledger


# -- data that is lost ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["restart", "flush"])
def test_lost_data_is_never_nothing_used(limited, redis_server, caplog, how):
    """Redis without its data is an error that says so and what to do, for every operation, logged once."""
    if how == "restart":
        redis_server.kill()
        redis_server.start()
    else:
        redis_server.execute("FLUSHALL")
    operations = [
        lambda: Process(limited).hold(1),
        lambda: limited.totals("ada"),
        lambda: limited.events("ada"),
        limited.plans,
        lambda: limited.settle(()),
        lambda: limited.put_account("ada", {"plan": "pro"}),
        lambda: limited.put_plan("pro", "{}"),
        limited.gate_events,
    ]
    for operation in operations:
        with pytest.raises(LedgerError, match=r"lost its data.*paygent:epoch accepted:"):
            operation()
    assert caplog.text.count("lost its data") == 1
    assert redis_server.execute("KEYS", "*") == [b"paygent:epoch"]


def test_other_processes_learn_of_the_loss(limited, make, redis_server):
    """A process that starts after the loss, on this machine or another one, takes no part either."""
    redis_server.execute("FLUSHALL")
    with pytest.raises(LedgerError, match="lost its data"):
        make().plans()  # it remembers from the file beside the journals
    (limited.journal_dir / "epoch").unlink()
    with pytest.raises(LedgerError, match="lost its data"):
        make().plans()  # it was told by the one before


def test_a_process_that_began_anew_too_early_is_told(limited, make, redis_server):
    """Where a newcomer took the empty Redis for new before anybody noticed, everybody stops once one does."""
    redis_server.execute("FLUSHALL")
    (limited.journal_dir / "epoch").unlink()
    newcomer = make()
    newcomer.plans()
    with pytest.raises(LedgerError, match="lost its data"):
        limited.plans()
    with pytest.raises(LedgerError, match="lost its data"):
        newcomer.plans()


def test_accepting_the_loss_begins_anew_with_the_plans(limited, make, redis_server):
    """What the message advises lets all processes go on, with nothing used and the plans they know."""
    other = make()
    other.plans()
    redis_server.execute("FLUSHALL")
    with pytest.raises(LedgerError) as raised:
        limited.plans()
    command = re.search(r"redis-cli (SET \S+ accepted:)", str(raised.value))[1].split()
    redis_server.execute(*command[:-1], command[-1] + "1")
    with contextlib.suppress(LedgerError):
        limited.plans()
    assert list(limited.plans()) == ["default"]
    reply = Process(limited).ask(need={"total_spend": 1001})
    assert (reply.denied, reply.posted) == ("total_spend", {})
    with contextlib.suppress(LedgerError):
        other.plans()
    assert list(other.plans()) == ["default"]
    redis_server.execute("FLUSHALL")
    with pytest.raises(LedgerError, match="lost its data"):
        limited.plans()


def test_a_process_that_noticed_nothing_goes_on_with_its_plans(limited, redis_server):
    """A loss that was accepted before a process noticed it makes none of its plans unlimited."""
    redis_server.execute("FLUSHALL")
    redis_server.execute("SET", "paygent:epoch", "accepted:1")
    with pytest.raises(LedgerError, match="replaced"):
        limited.plans()
    assert list(limited.plans()) == ["default"]


def test_data_that_is_restored_is_taken_up_again(limited, make, redis_server):
    """Once the data is back, mark included, the ledger goes on with what was used."""
    dump = {key: redis_server.execute("DUMP", key) for key in redis_server.execute("KEYS", "*")}
    redis_server.execute("FLUSHALL")
    with pytest.raises(LedgerError):
        limited.plans()
    for key, value in dump.items():
        redis_server.execute("RESTORE", key, 0, value, "REPLACE")
    assert sum(n for (scope, _), n in limited.totals("ada").items() if scope == "total_spend") == 400


@pytest.mark.parametrize("fail_open", [True, False])
def test_an_app_goes_on_as_configured(redis_server, redis_url, fail_open):
    """Redis lost its data: the process keeps to what it knew was used, or refuses, as it was told to."""
    pg = Paygent.init(ledger=redis_url, auto_instrument=False, fail_open=fail_open)
    pg.configure_plan("default", plan(10))
    for _ in range(4):
        call(pg)
    settle(pg)
    redis_server.execute("FLUSHALL")
    with contextlib.suppress(LedgerError):
        settle(pg)
    made, refused = 0, None
    while refused is None:
        try:
            call(pg)
            made += 1
        except (PaygentLimitExceeded, PaygentUnavailable) as error:
            refused = error
    pg.shutdown(timeout=1)
    assert isinstance(refused, PaygentLimitExceeded if fail_open else PaygentUnavailable)
    assert made == 6 if fail_open else made <= 6


# -- many at once --------------------------------------------------------------------------------------


def test_a_user_whom_everybody_changes_is_busy(limited, monkeypatch, redis_server):
    """After eight tries in vain a need is refused as busy, and nothing is changed by that."""
    holder = Process(limited)
    stored = holder.hold(100).lease
    tries = []
    monkeypatch.setattr("time.sleep", tries.append)
    _disturb(monkeypatch, redis_server)
    reply = holder.ask(need={"total_spend": 50})
    assert (reply.denied, reply.busy, reply.lease) == ("total_spend", True, stored)
    assert len(tries) == 8
    with pytest.raises(LedgerError, match="too many others"):  # events must not be taken for settled
        holder.ask(events=[event(reply, 1)])
    monkeypatch.undo()
    assert Process(limited).ask().others == stored


def _disturb(monkeypatch, server):
    """Somebody else changes the user between each load and the commit after it."""
    real = Transaction.begin

    def begin(self, *arguments):
        real(self, *arguments)
        server.execute("INCR", keys.key("ada", "v"))

    monkeypatch.setattr(Transaction, "begin", begin)


def test_of_many_users_only_the_disturbed_one_is_held_up(limited, monkeypatch, redis_server):
    """A transaction over many users that one of them spoils goes on without him for the others."""
    processes = {user: Process(limited, user) for user in ("ada", "bob", "cy", "dora")}
    for process in processes.values():
        process.ask()
    requests = [process.last for process in processes.values()]
    for request in requests:
        request.seq, request.need = request.seq + 1, {"total_spend": 10}
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    _disturb(monkeypatch, redis_server)
    replies = limited.lease(requests)
    assert [reply.busy for reply in replies] == [True, False, False, False]


def test_writers_of_one_user_all_get_through(make, limited):
    """Eight ledgers that change one user at the same time lose nothing of each other."""
    reply = Process(limited).ask()
    ledgers = [make() for _ in range(8)]

    def write(ledger):
        for _ in range(15):
            with contextlib.suppress(LedgerError):  # too busy: said, not lost
                counted.append(ledger.settle([event(reply, 1)]))

    counted = []
    threads = [threading.Thread(target=write, args=(ledger,)) for ledger in ledgers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert limited.totals("ada")[bucket_in(reply)] == 400 + sum(counted)
    assert len(counted) > 100


# -- what is kept, and where ---------------------------------------------------------------------------


def test_ids_and_rows_are_kept_for_35_days(make, redis_server):
    """An event sent again after 34 days counts once; rows older than 35 days go, their totals stay."""
    clock = FakeClock()
    ledger = make(now_us=clock.now_us)
    first = event(Process(ledger).ask(), 5)
    ledger.settle([first])
    clock.advance(34 * DAY_S)
    assert ledger.settle([first]) == 0
    clock.advance(2 * DAY_S)
    second = event(Process(ledger).ask(), 7)
    ledger.settle([second])
    assert [row.id for row in ledger.events("ada")] == [second.id]
    assert ledger.totals("ada")["total_spend", first.period] == 5
    assert redis_server.execute("ZCARD", keys.key("ada", "i")) == 1
    for part in ("i", "e"):
        assert 35 * DAY_S <= redis_server.execute("TTL", keys.key("ada", part)) <= 36 * DAY_S


def test_what_a_cap_rests_on_never_expires(limited, redis_server):
    """Account, totals of the period, plans and the mark have no time to live."""
    limited.put_account("ada", {"plan": "default"})
    (period,) = (
        window for scope, window in limited.totals("ada") if window.startswith("p") and scope == "total_spend"
    )
    for name in (keys.key("ada", "a"), keys.key("ada", "t", period), keys.PLANS, "paygent:epoch"):
        assert redis_server.execute("TTL", name) == -1


@pytest.mark.parametrize("user", ["ada", "}", "{}", "", "a}b{c", "ü\0"])
def test_a_users_keys_share_one_slot(user):
    """Whatever a user is called, his keys have one and the same hash tag, and nobody else's."""
    names = [keys.key(user, "v"), keys.key(user, "t", "s1:}{"), keys.key(user, "s", "{x}")]
    tags = {re.search(r"\{([^}]*)\}", name)[1] for name in names}
    assert len(tags) == 1
    assert tags.pop()
    assert keys.key(user, "v") != keys.key(user + "'", "v")


def test_the_newest_rows_of_many_users_are_found(make):
    """The newest events of all are the newest whoever's they are, also beyond the first hundred users."""
    clock = FakeClock()
    ledger = make(now_us=clock.now_us)
    rows = []
    for number in range(230):
        reply = Process(ledger, f"user {number % 150}").ask()
        clock.advance(1)
        rows.append(event(reply, 1, timestamp_us=clock.now_us()))
    ledger.settle(rows)
    newest = [row.id for row in reversed(rows)]
    assert [row.id for row in ledger.events(limit=200)] == newest[:200]
    assert [row.id for row in ledger.events(limit=7)] == newest[:7]
    assert ledger.events(limit=0) == []


# -- the server ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_redis_that_forgets_is_refused(make, redis_server, policy):
    """A Redis that throws keys away when memory is short is an error that names the setting."""
    redis_server.execute("CONFIG", "SET", "maxmemory", "100mb")
    redis_server.execute("CONFIG", "SET", "maxmemory-policy", policy)
    try:
        with pytest.raises(LedgerError, match=f"maxmemory-policy is {policy}.*noeviction"):
            make().plans()
        redis_server.execute("CONFIG", "SET", "maxmemory-policy", "noeviction")
        assert make().plans() == {}
    finally:
        redis_server.execute("CONFIG", "SET", "maxmemory", "0")
        redis_server.execute("CONFIG", "SET", "maxmemory-policy", "noeviction")


def test_a_full_redis_is_an_error_and_changes_nothing(limited, redis_server):
    """While Redis is out of memory settling fails as a whole; with room again it works."""
    reply = Process(limited).ask()
    row = event(reply, 100)
    redis_server.execute("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(LedgerError, match="maxmemory"):
            limited.settle([row])
    finally:
        redis_server.execute("CONFIG", "SET", "maxmemory", "0")
    assert limited.totals("ada")[bucket_in(reply)] == 400
    assert limited.settle([row]) == 1


def test_a_socket_and_a_password(make, redis_server):
    """A Redis is reached by its socket, as a named user with a password; a wrong one is told without it."""
    redis_server.execute("ACL", "SETUSER", "ann", "on", ">p@ss/w?rd", "~paygent:*", "+@all")
    good = f"unix://ann:p%40ss%2Fw%3Frd@{redis_server.unix_socket}?db=0"
    ledger = make(good)
    ledger.put_plan("default", plan_json())
    assert list(make(f"redis://ann:p%40ss%2Fw%3Frd@127.0.0.1:{redis_server.port}/0").plans()) == ["default"]
    with pytest.raises(LedgerError) as raised:
        make(good.replace("rd@", "rdx@")).plans()
    assert "p@ss" not in str(raised.value)
    assert "p%40ss" not in str(raised.value)
    assert str(redis_server.unix_socket) in str(raised.value)


def test_the_restart_of_a_durable_redis_goes_unnoticed(durable_redis_server, make):
    """A Redis with an append-only file comes back with everything, and the stale connection is replaced."""
    ledger = make(durable_redis_server.url)
    ledger.put_plan("default", plan_json(max_spend_per_period=1e-6, pre_call_estimate=True))
    held = Process(ledger).hold(1000).lease
    durable_redis_server.kill()
    durable_redis_server.start()
    assert Process(ledger).ask().others == held


def test_nothing_is_asked_before_it_is_used():
    """Making a ledger opens no connection."""
    open_ledger("redis://127.0.0.1:1/0").close()


def test_a_torn_answer_is_no_answer(redis_server, redis_url, make):
    """A connection that is cut in the middle of a load is replaced, and what was watched is not written."""
    proxy = Proxy(redis_server.port)
    try:
        ledger = make(redis_url.replace(f":{redis_server.port}/", f":{proxy.port}/"))
        ledger.settle(())
        reply = Process(ledger).ask()
        proxy.cut_after = lambda data: proxy.cuts < 1 and b"ZMSCORE" in data
        assert ledger.settle([event(reply, CENT)]) == 1
        assert proxy.cuts == 1
    finally:
        proxy.close()
    assert json.loads(redis_server.execute("GET", keys.key("ada", "v"))) >= 2


def test_who_was_overtaken_twice_goes_first(limited, make, monkeypatch):
    """A process that needs longer than the others leave it gets its turn: they wait until it has written."""
    slow, quick = Process(limited), Process(make())
    reply, begin, begun = slow.ask(), Transaction.begin, []
    until, overtaken = threading.Event(), []

    def slowly(self, *arguments):
        begin(self, *arguments)
        if self._name == limited._name:
            begun.append(None)
            time.sleep(0.02)

    def overtake():
        while not until.is_set():
            overtaken.append(quick.hold(1))

    monkeypatch.setattr(Transaction, "begin", slowly)
    thread = threading.Thread(target=overtake)
    thread.start()
    try:
        slow.ask(events=[event(reply, 7)])
    finally:
        until.set()
        thread.join()
    assert 2 < len(begun) < TRIES
    assert len(overtaken) > 2
    assert sum(n for (scope, _), n in limited.totals("ada").items() if scope == "total_spend") == 407


def test_a_turn_that_nobody_takes_ends(limited, redis_server):
    """A process that dies before its turn keeps the others waiting for a tenth of a second, not for ever."""
    Process(limited).ask()
    redis_server.execute("SET", keys.key("ada", "q"), "somebody who died", "PX", 100)
    reply = Process(limited).ask(need={"total_spend": 50})
    assert (reply.denied, redis_server.execute("EXISTS", keys.key("ada", "q"))) == (None, 0)
