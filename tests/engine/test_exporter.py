import asyncio
import threading
from concurrent.futures import wait

import pytest
from engine_values import event

from paygent.exporter import REQUESTS_PER_STEP, Exporter
from paygent.journal import EVENTS_PER_BATCH, Journal
from paygent.ledger import LeaseRequest, LedgerError
from paygent.ledgers.memory import MemoryLedger
from paygent.testing.clock import FakeClock


class SpyLedger(MemoryLedger):
    """A ledger that notes its transactions and fails where a test says so."""

    def __init__(self, folder, clock):
        super().__init__(clock.now_us)
        self.folder = folder
        self.transactions = []
        self.away = False
        self.poison = set()

    @property
    def journal_dir(self):
        return self.folder

    def _check(self, events):
        if self.away:
            raise LedgerError("away")
        if self.poison & {row.id for row in events}:
            raise OverflowError("no database takes this")

    def lease(self, requests):
        self._check([row for request in requests for row in request.events])
        if self.poison & {request.user_id for request in requests}:
            raise ValueError("a plan that does not compile")
        self.transactions.append((len(requests), sum(len(request.events) for request in requests)))
        return super().lease(requests)

    def settle(self, events, close=()):
        self._check(events)
        self.transactions.append((0, len(events)))
        return super().settle(events, close)


class Wallet:
    """The least that takes part in a step."""

    poll_at_s = 0.0

    def __init__(self, user_id, events=()):
        self.user_id = user_id
        self.events = list(events)
        self.sent = None

    def prepare(self, seq, boot_s):
        if self.sent is not None:
            return None
        self.sent, self.events = self.events, []
        return LeaseRequest(self.user_id, "lease", seq, events=list(self.sent))

    def answered(self):
        self.sent = None

    def failed(self):
        self.events, self.sent = (self.sent or []) + self.events, None


class Desk:
    """Notes what it is told."""

    def __init__(self):
        self.wallets = []
        self.told = []
        self.broken = set()
        self.again = 0
        self.ticks = 0

    def due(self, boot_s):
        return [wallet for wallet in self.wallets if wallet.events]

    def answered(self, wallet, request, reply):
        if wallet.user_id in self.broken:
            raise KeyError("a bug of ours")
        wallet.answered()
        self.told.append(("answered", wallet.user_id))
        self.again -= 1
        return self.again >= 0

    def next_poll_s(self):
        return None

    def everyone(self, *, give_back):
        return self.wallets

    def reachable(self):
        pass

    def unreachable(self, error):
        self.told.append(("unreachable", str(error)))

    def faulted(self, wallet, error):
        self.told.append(("faulted", wallet.user_id))

    def after_tick(self, ledger, boot_s):
        self.ticks += 1


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def ledger(tmp_path, clock):
    return SpyLedger(tmp_path / "journals", clock)


@pytest.fixture
def desk():
    return Desk()


@pytest.fixture
def exporter(ledger, desk, clock):
    journal = Journal(ledger.journal_dir, "lease")
    exporter = Exporter(ledger, journal, "lease", desk, clock.boot, 1.0)
    exporter.threaded = False
    yield exporter
    exporter.stop(5)
    journal.close(remove=False)


@pytest.fixture
def wallet(exporter, desk):
    """Make a wallet with events that are in the journal."""

    def make(user_id, count=0):
        rows = [event(user_id) for _ in range(count)]
        for row in rows:
            exporter.journal.append(row)
        desk.wallets.append(Wallet(user_id, rows))
        return desk.wallets[-1]

    return make


def test_requests_of_many_users_are_one_transaction(exporter, ledger, wallet):
    """What waits is merged: many users, one transaction."""
    for number in range(50):
        exporter.submit(wallet(f"user {number}", 2))
    exporter.run_step()
    assert ledger.transactions == [(50, 100)]
    assert exporter.flushed == 100


def test_a_transaction_is_of_bounded_size(exporter, ledger, wallet):
    """No transaction holds more than 500 events or 100 operations, also of one user with very many events."""
    for number in range(250):
        wallet(f"user {number}", 1)
    for user, count in (("a", 499), ("b", 2), ("c", 1700)):
        wallet(user, count)
    exporter.run_step()
    assert max(events for _, events in ledger.transactions) <= EVENTS_PER_BATCH
    assert max(requests for requests, _ in ledger.transactions) <= REQUESTS_PER_STEP
    assert len(ledger.events(limit=10_000)) == exporter.flushed == 250 + 499 + 2 + 1700


def test_a_failed_step_is_made_again(exporter, ledger, desk, wallet, clock):
    """While the ledger is away nothing is lost and nothing counted, and all of it is posted afterwards."""
    wallet("ada", 1200)
    ledger.away = True
    exporter.run_step()
    assert desk.told == [("unreachable", "away")]
    assert (exporter.flushed, desk.ticks) == (0, 0)
    ledger.away = False
    clock.advance(1)
    exporter.run_step()
    assert (len(ledger.events(limit=2000)), exporter.flushed, desk.ticks) == (1200, 1200, 1)


def test_a_failing_ledger_is_asked_once_a_step(exporter, ledger, desk, wallet):
    """After one refusal of the ledger the rest of a step waits: nobody's time is spent on asking again."""
    for number in range(1000):
        wallet(f"user {number}", 1)
    ledger.away = True
    exporter.run_step()
    assert len([told for told in desk.told if told[0] == "unreachable"]) == 1
    assert all(len(member.events) == 1 for member in desk.wallets)


def test_an_event_that_no_ledger_takes_holds_up_nobody(exporter, ledger, desk, wallet, caplog):
    """The bad event is set aside and said once, and every other one of all users is posted."""
    members = [wallet(f"user {number}", 4) for number in range(10)]
    bad = members[3].events[2]
    ledger.poison = {bad.id}
    exporter.run_step()
    exporter.run_step()
    assert len(ledger.events()) == 39
    assert exporter.rejected == 1
    assert not [told for told in desk.told if told[0] != "answered"]
    assert caplog.text.count(bad.id) == 1
    assert bad.id in (ledger.folder / "rejected.lines").read_text()


def test_an_operation_that_cannot_be_handled_is_told_of_that_user(exporter, ledger, desk, wallet):
    """A fault with one user's operation is told for that user alone, and the ledger is not taken for away."""
    for user in ("ada", "bob", "cy"):
        wallet(user, 2)
    ledger.poison = {"bob"}
    exporter.run_step()
    assert sorted(desk.told) == [("answered", "ada"), ("answered", "cy"), ("faulted", "bob")]
    assert len(ledger.events("bob")) == 2


def test_a_bug_in_taking_an_answer_stays_with_its_user(exporter, desk, wallet):
    """Where an answer cannot be taken the wallet is free for another try, and the others have theirs."""
    members = [wallet(user, 1) for user in ("ada", "bob", "cy")]
    desk.broken = {"ada"}
    exporter.run_step()
    assert sorted(desk.told) == [("answered", "bob"), ("answered", "cy"), ("faulted", "ada")]
    assert members[0].sent is None


def test_a_bug_in_asking_stays_with_its_user(exporter, desk, wallet):
    """A wallet that cannot say what it wants does not keep the others from asking."""
    broken = wallet("ada", 1)
    broken.prepare = lambda seq, boot_s: 1 / 0
    wallet("bob", 1)
    exporter.run_step()
    assert sorted(desk.told) == [("answered", "bob"), ("faulted", "ada")]


def test_who_asks_again_and_again_takes_turns(exporter, desk, wallet, ledger):
    """A wallet that wants more each time does not keep the thread to itself."""
    desk.again = 1000
    exporter.submit(wallet("ada"))
    exporter.run_step()
    assert len(ledger.transactions) <= 10
    exporter.submit(wallet("bob"))
    exporter.run_step()
    assert ("answered", "bob") in desk.told


def test_the_dead_are_accounted_for_before_the_first_grant(exporter, ledger, wallet):
    """Events of a dead process are posted and its lease is closed before this one is granted anything."""
    left = Journal(ledger.journal_dir, "dead")
    rows = [event("ada") for _ in range(1200)]
    for row in rows:
        left.append(row)
    left.close(remove=False)
    ledger.lease([LeaseRequest("ada", "dead", 1, held={("x", "y"): 5}, keep={("x", "y"): 5})])
    ledger.transactions.clear()
    exporter.submit(wallet("ada"))
    exporter.call(lambda _: None)
    exporter.run_step()
    assert ledger.transactions == [(0, 500), (0, 500), (0, 200), (1, 0)]
    assert len(ledger.events(limit=2000)) == 1200
    assert ledger._leases.get("ada", {}) == {}
    assert not list(ledger.folder.glob("dead*"))


def test_no_grant_while_the_dead_cannot_be_accounted_for(exporter, ledger, desk, wallet, clock):
    """Where recovery fails no operation is sent; it is made good once the ledger answers."""
    left = Journal(ledger.journal_dir, "dead")
    left.append(event("ada"))
    left.close(remove=False)
    ledger.away = True
    exporter.submit(wallet("ada"))
    exporter.run_step()
    assert ledger.transactions == []
    ledger.away = False
    clock.advance(1)
    exporter.submit(desk.wallets[0])
    exporter.run_step()
    assert ledger.transactions == [(0, 1), (1, 0)]


def test_the_overflow_is_posted_before_the_next_grant(exporter, ledger, wallet):
    """Events that left memory are posted from the journal before any lease is granted again."""
    member = wallet("ada", 700)
    assert exporter.journal.shed(member.events[:600]) == 0
    member.events = member.events[600:]
    exporter.run_step()
    assert ledger.transactions[-1][0] == 1
    assert len(ledger.events(limit=2000)) == 700
    assert exporter.journal.shed_count == 0


def test_a_question_is_answered_on_the_thread(exporter, ledger):
    """A function runs on the ledger thread, and whoever asked gets its result or its error."""
    exporter.threaded = True
    assert exporter.call(lambda _: threading.current_thread().name).result(10) == "paygent-ledger"
    with pytest.raises(KeyError):
        exporter.call(lambda _: {}["x"]).result(10)
    ledger.away = True
    with pytest.raises(LedgerError):
        exporter.call(lambda its: its.settle(())).result(10)


def test_one_thread_serves_everybody(exporter, wallet):
    """However many threads ask at once, there is one ledger thread."""
    exporter.threaded = True
    names = set()
    threads = [
        threading.Thread(target=lambda: names.add(exporter.call(lambda _: threading.get_ident()).result(10)))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(names) == 1


def test_nobody_waits_for_a_thread_that_has_ended(exporter):
    """What was asked too late is answered with an error, not never."""
    exporter.threaded = True
    exporter.call(lambda _: None).result(10)
    assert exporter.stop(10)
    with pytest.raises(LedgerError):
        exporter.call(lambda _: None).result(1)


def test_stopping_waits_no_longer_than_it_is_told(exporter):
    """A ledger that hangs holds up nobody who wants to stop, and the thread ends when it comes back."""
    exporter.threaded = True
    hangs = threading.Event()
    stuck = exporter.call(lambda _: hangs.wait(30))
    waits = exporter.call(lambda _: None)
    assert not exporter.stop(0.01)
    hangs.set()
    assert stuck.result(10)
    assert exporter.stop(10)
    assert wait([waits], 1).done


def test_a_fault_on_the_thread_does_not_end_it(exporter, desk, caplog):
    """The thread outlives a bug in what it calls, and the log tells of it once."""
    exporter.threaded = True
    failures = []

    def due(boot_s):
        failures.append(1)
        raise ZeroDivisionError("a bug of ours")

    desk.due = due
    for _ in range(3):
        assert exporter.call(lambda _: 1).result(10) == 1
    assert caplog.text.count("Traceback") == 1


@pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit, GeneratorExit])
def test_nothing_that_is_raised_ends_the_thread(exporter, desk, ledger, caplog, error):
    """What a callback lets out there is logged, also what is no Exception; the thread goes on."""
    exporter.threaded = True

    def due(_boot_s):
        desk.due = lambda _boot_s: []
        raise error

    desk.due = due
    exporter.submit(Wallet("ada"))
    assert exporter.call(lambda asked: asked is ledger).result(30)
    assert "on the ledger thread" in caplog.text


def test_who_asks_a_thread_that_ends_is_told(exporter):
    """It may end between the question and the look at it: there is one answer, perhaps that it has ended."""
    exporter.threaded = True
    exporter.call(lambda ledger: None).result(30)
    lock = exporter._lock

    class Gap:
        """The lock; whoever lets go of it finds the thread at its end."""

        def __enter__(self):
            lock.acquire()

        def __exit__(self, *error):
            lock.release()
            exporter.__dict__["_made_lock"] = lock
            exporter.stop(30)

    exporter.__dict__["_made_lock"] = Gap()
    answered = exporter.call(lambda ledger: None).exception(30)
    assert answered is None or isinstance(answered, LedgerError)
