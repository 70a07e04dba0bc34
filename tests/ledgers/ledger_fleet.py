"""What the tests of the ledgers for a fleet share: metered calls, a proxy that cuts, the cases of both."""

import contextlib
import json
import os
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from paygent import Paygent, PaygentLimitExceeded, PaygentUnavailable, PlanConfig
from paygent.ledger import LedgerError
from paygent.ledgers import open_ledger
from paygent.testing._contract_values import Process, event

HERE = Path(__file__).parent
# One call costs exactly a cent: ten input tokens at $1 per 1 000, and none of output.
CENT = 10_000_000
EXACT = {"model": "m", "provider": "openai", "estimated_max_tokens": 9}  # and one token of input
ANSWER = {"object": "chat.completion", "choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 0}}


def plan(calls):
    """A plan that covers exactly *calls* calls."""
    return PlanConfig(
        max_spend_per_period=calls / 100 + 1e-9,
        cost_rates={"m": {"input": 1.0, "output": 1.0}},
        pre_call_estimate=True,
        reservation_safety_factor=1.0,
    )


def call(pg, user="ada"):
    """One metered call."""
    return pg.wrap(lambda: ANSWER, user_id=user, **EXACT)


def until_refused(pg, most=1000):
    """Call until the plan is spent; returns how many calls were made. Busy is no reason to stop."""
    made = 0
    while made < most:
        try:
            call(pg)
            made += 1
        except PaygentLimitExceeded as refused:
            if not refused.retryable:
                break
    return made


def settle(pg):
    """Deliver everything, as the next ticks would; an error if the ledger is still away."""
    pg._meter.exporter.flush().result(30)


def posted(url, user="ada"):
    """How many calls of a user the ledger has, after checking that the total is their sum."""
    ledger = open_ledger(url)
    rows = ledger.events(user, limit=100_000)
    total = sum(n for (scope, _), n in ledger.totals(user).items() if scope == "total_spend")
    ledger.close()
    assert total == CENT * len(rows)
    assert len({row.id for row in rows}) == len(rows)
    return len(rows)


def start(script, *arguments):
    """Run *script* in another Python; it finds this module, and its arguments from ``sys.argv[1]`` on."""
    path = os.pathsep.join([str(HERE), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )


def finished(worker):
    """What the process printed."""
    out, _ = worker.communicate(timeout=100)
    assert worker.returncode == 0
    return json.loads(out)


class Traffic:
    """Threads that call without a pause; ``made`` is how many calls were."""

    def __init__(self, pg, users=("ada", "bob", "cy")):
        self.made = dict.fromkeys(users, 0)
        self.errors = []
        self._pg = pg
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(user,)) for user in users]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info):
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def reaches(self, more):
        """Wait until every user has made *more* further calls."""
        goal = {user: made + more for user, made in self.made.items()}
        self.until(lambda: all(self.made[user] >= goal[user] for user in goal))

    def until(self, is_so):
        """Wait until *is_so* says true, while the calls go on."""
        ends_s = time.monotonic() + 60
        while not is_so():
            assert time.monotonic() < ends_s, (self.made, self.errors)
            time.sleep(0.005)

    def _run(self, user):
        while not self._stop.is_set():
            try:
                call(self._pg, user)
            except Exception as error:  # noqa: BLE001  # shown by the test
                self.errors.append(repr(error))
            self.made[user] += 1
            time.sleep(0.002)


class Proxy:
    """
    A TCP proxy of the loopback; ``cut_after`` is called with what a client sends.

    Where it says true, the server gets that and answers it, and then both sides are cut off: the client never
    learns of the answer. ``holds``: nothing goes through, and nothing is closed.
    """

    def __init__(self, port):
        self.cut_after: Callable[[bytes], bool] = lambda data: False
        self.cuts = 0
        self.holds = False
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self):
        """Stop, and cut everybody off."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(30)

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(client,)))
                self._threads[-1].start()

    def _serve(self, client):
        with contextlib.suppress(OSError), client, socket.create_connection(self._target) as server:
            selector = selectors.DefaultSelector()
            selector.register(client, selectors.EVENT_READ, server)
            selector.register(server, selectors.EVENT_READ, client)
            with selector:
                while self._listener.fileno() >= 0:
                    for key, _ in selector.select(0.02) if not self.holds else ():
                        data = key.fileobj.recv(1 << 16)
                        if not data:
                            return
                        key.data.sendall(data)
                        if key.fileobj is client and self.cut_after(data):
                            self._pass_on_unheard(client, server)
                            return

    def _pass_on_unheard(self, client, server):
        """The rest of what the client sends still arrives; then it has been answered, for all it is worth."""
        client.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            while data := client.recv(1 << 16):
                server.sendall(data)
        self.cuts += 1


CAPPED = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
from ledger_fleet import plan, until_refused
from paygent import Paygent

pg = Paygent.init(ledger=sys.argv[1], auto_instrument=False)
pg.configure_plan("default", plan(100))
with ThreadPoolExecutor(4) as threads:
    made = sum(threads.map(lambda _: until_refused(pg), range(4)))
stats = pg.queue_stats
pg.shutdown()
print(json.dumps([made, stats["dropped"], stats["degraded"]]))
"""

DIES = """
import os, sys
from ledger_fleet import call, plan
from paygent import Paygent

pg = Paygent.init(ledger=sys.argv[1], auto_instrument=False)
pg.configure_plan("default", plan(100_000))
while True:
    call(pg)
    os.write(1, b"x")
"""

FORKS = """
import json, os, sys
from ledger_fleet import call, plan, settle
from paygent import Paygent

pg = Paygent.init(ledger=sys.argv[1], auto_instrument=False)
pg.configure_plan("default", plan(100_000))
call(pg)
settle(pg)
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        for _ in range(5):
            call(pg)
        settle(pg)
        pg.shutdown()
        os._exit(0 if not pg.queue_stats["degraded"] else 9)
    children.append(child)
for _ in range(5):
    call(pg)
settle(pg)
status = [os.waitpid(child, 0)[1] for child in children]
call(pg)
settle(pg)
degraded = pg.queue_stats["degraded"]
pg.shutdown()
print(json.dumps([status, degraded]))
"""


class FleetCase:
    """
    What holds for every ledger that many machines share.

    A subclass has a fixture ``server`` (of ``real_servers``, running, keeping its data) and ``url``, and says
    in ``commit`` what a client sends last, and in ``link`` which module has the connection.
    """

    commit: bytes
    link: str

    @pytest.fixture
    def pg(self, url):
        pg = Paygent.init(ledger=url, auto_instrument=False)
        pg.configure_plan("default", plan(100_000))
        yield pg
        pg.shutdown()

    @pytest.fixture
    def proxy(self, server):
        proxy = Proxy(server.port)
        yield proxy
        proxy.close()

    @pytest.fixture
    def through(self, proxy, server, url):
        """The ledger's URL, by way of the proxy."""
        with contextlib.closing(open_ledger(url)) as ledger:
            ledger.settle(())  # so that what is made once is made
        return url.replace(f":{server.port}/", f":{proxy.port}/")

    @pytest.mark.parametrize("how", ["stop", "kill"])
    def test_a_server_that_goes_and_comes_back(self, pg, server, url, how, ledger_waits):
        """With the server gone in mid-traffic no call fails, and few wait for it; all are posted."""
        with Traffic(pg) as traffic:
            traffic.reaches(20)
            getattr(server, how)()
            traffic.until(lambda: pg.queue_stats["degraded"])
            traffic.reaches(1)  # the end of what was waited for when it became known
            ledger_waits.forget()
            traffic.reaches(30)
            waited = len(ledger_waits)
            server.start()
            traffic.reaches(10)
        settle(pg)
        stats = pg.queue_stats
        assert traffic.errors == []
        assert (stats["degraded"], stats["pending"], stats["dropped"]) == (False, 0, 0)
        assert {user: posted(url, user) for user in traffic.made} == traffic.made
        assert waited <= len(traffic.made)  # one each, should an answer still have been on its way

    def test_a_server_that_hangs(self, pg, server, url, ledger_waits):
        """While the server is stopped with its connections open, calls go on; all are posted afterwards."""
        with Traffic(pg) as traffic:
            traffic.reaches(20)
            server.pause()
            traffic.reaches(100)
            ledger_waits.forget()
            call(pg, "dora")  # who has no lease yet, so that the ledger would have to be asked
            waited = len(ledger_waits)
            server.resume()
            traffic.reaches(10)
        settle(pg)
        assert traffic.errors == []
        assert {user: posted(url, user) for user in traffic.made} == traffic.made
        assert posted(url, "dora") == 1
        assert waited <= 1

    def test_a_hung_server_holds_no_trip_for_long(self, through, proxy, monkeypatch):
        """A ledger whose answers stay away is given up in time, and works once they come again."""
        monkeypatch.setattr(f"{self.link}.TRIP_S", 0.5)
        ledger = open_ledger(through)
        ledger.settle(())
        proxy.holds = True
        with pytest.raises(LedgerError):
            ledger.plans()
        proxy.holds = False
        assert ledger.plans() == {}
        ledger.close()

    def test_a_commit_whose_answer_is_lost_counts_once(self, through, proxy, url):
        """Events whose commit was not heard of are counted once, however often they are sent again."""
        with contextlib.closing(open_ledger(url)) as ledger:
            reply = Process(ledger).ask()
        cut, rows = open_ledger(through), [event(reply, CENT) for _ in range(5)]
        proxy.cut_after = lambda data: proxy.cuts < 2 and self.commit in data
        for _ in range(3):
            with contextlib.suppress(LedgerError):
                cut.settle(rows)
        assert proxy.cuts >= 1
        assert cut.settle(rows) == 0
        cut.close()
        assert posted(url) == 5

    def test_a_grant_whose_answer_is_lost_is_answered_again(self, through, proxy, url):
        """A lease operation that was committed unheard and is sent again grants what it granted, once."""
        with contextlib.closing(open_ledger(url)) as ledger:
            ledger.put_plan("default", plan(100).model_dump_json())
        cut = open_ledger(through)
        proxy.cut_after = lambda data: proxy.cuts < 1 and self.commit in data
        process = Process(cut)
        with contextlib.suppress(LedgerError):
            process.ask(need={"total_spend": CENT})
        assert proxy.cuts == 1
        (again,) = cut.lease([process.last])
        with contextlib.closing(open_ledger(url)) as other:
            assert Process(other).ask().others == again.lease
        assert again.denied is None
        cut.close()

    def test_processes_share_one_cap(self, url):
        """Four processes on one ledger make the hundred calls that the plan covers, and not one more."""
        workers = [start(CAPPED, url) for _ in range(4)]
        told = [finished(worker) for worker in workers]
        made = sum(count for count, _, _ in told)
        assert all(not dropped and not degraded for _, dropped, degraded in told), told
        assert 99 <= made <= 100
        assert posted(url) == made

    def test_a_killed_process_loses_nothing(self, url):
        """What a process had answered when it was killed is posted by the next one of its machine."""
        worker = start(DIES, url)
        answered = worker.stdout.read(200)
        worker.kill()
        answered += worker.stdout.read()
        worker.wait(30)
        worker.stdout.close()
        pg = Paygent.init(ledger=url, auto_instrument=False)
        call(pg, "bob")
        settle(pg)
        pg.shutdown()
        # the last one may have been cut off between its journal and its report
        assert len(answered) <= posted(url) <= len(answered) + 1

    def test_forked_processes_have_connections_of_their_own(self, url):
        """Children forked from a process with an open connection use their own, and the parent keeps his."""
        status, degraded = finished(start(FORKS, url))
        assert (status, degraded) == ([0, 0, 0], False)
        assert posted(url) == 1 + 3 * 5 + 5 + 1

    def test_fail_closed_means_closed(self, url, server):
        """With fail_open=False a user without a lease gets PaygentUnavailable while the server is away."""
        pg = Paygent.init(ledger=url, auto_instrument=False, fail_open=False)
        pg.configure_plan("default", plan(10))
        server.stop()
        with pytest.raises(PaygentUnavailable):
            call(pg)
        server.start()
        settle(pg)
        call(pg)
        pg.shutdown()
        assert posted(url) == 1

    def test_no_message_holds_a_password(self, server, url, caplog):
        """What is raised and logged when the server is away holds no password."""
        server.stop()
        secret = url.replace("://", "://ann:s3cr3t%21@").replace("postgres@", "")
        ledger = open_ledger(secret)
        with pytest.raises(LedgerError) as raised:
            ledger.settle(())
        told = f"{raised.value}{raised.value.__cause__}{caplog.text}"
        assert "s3cr3t" not in told
        assert str(server.port) in told
        ledger.close()
