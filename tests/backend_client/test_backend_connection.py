"""``init`` with an API key: how long it waits, what it says, and where it asks."""

import contextlib
import logging
import socket
import subprocess
import sys
import threading
import time
import warnings

import httpx
import pytest
from moody_server import API, KEY

from paygent import Paygent, _settings
from paygent.core.errors import PaygentAuthInvalid, PaygentBackendUnreachable
from paygent.ledger import LedgerError
from paygent.ledgers import _backend_link
from paygent.ledgers._backend_link import Link, RejectedError

INIT_S_MAX = 20.0  # two, on an idle machine; without a deadline of ours it would be minutes, or for ever


@contextlib.contextmanager
def listener(serve):
    """A server that does with each connection what *serve* does; yields its URL."""
    open_sockets, ended = [], threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept():
            while not ended.is_set():
                with contextlib.suppress(OSError):
                    connection, _ = listening.accept()
                    open_sockets.append(connection)
                    threading.Thread(target=serve, args=(connection, ended), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        ended.set()
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
    for connection in open_sockets:
        connection.close()


def silent(connection, ended):
    """Takes a request and says nothing."""
    ended.wait(100)


def dripping(connection, ended):
    """Says one letter of its head at a time, so that it is never quite silent."""
    with contextlib.suppress(OSError):
        connection.sendall(b"HTTP/1.1 200 OK\r\nx-slow: ")
        while not ended.wait(0.3):
            connection.sendall(b"x")


def dripping_body(connection, ended):
    """Says its answer letter by letter."""
    with contextlib.suppress(OSError):
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        while not ended.wait(0.3):
            connection.sendall(b" ")


@pytest.mark.parametrize(
    "key", ["pg_live_\u00e4", "two words", "pg_live_x\nHost: evil", "pg_live_\x00", "\u2028", 7]
)
def test_a_key_that_no_header_can_carry_is_named_and_not_shown(tmp_path, key):
    """It is refused at once, by the name of the argument, and is in no message."""
    with pytest.raises(ValueError, match="api_key") as refused:
        Paygent.init(key, "http://127.0.0.1:9", tmp_path / "p.db", auto_instrument=False)
    assert repr(key) not in str(refused.value)
    assert str(key) not in str(refused.value)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:8765", "localhost", "http://", "ftp://x", "http://x:99999", "http://[::1", 7]
)
def test_an_address_that_is_none_is_named(tmp_path, address):
    """It is refused at once: the login that an address may hold is in no message."""
    with pytest.raises(ValueError, match="base_url") as refused:
        Paygent.init(KEY, address, tmp_path / "p.db", auto_instrument=False)
    assert str(address) not in str(refused.value)


def test_a_key_from_a_file_may_end_its_line(monkeypatch):
    """Space around the key and the address, as files and shells leave it behind, is no part of them."""
    monkeypatch.setenv("PAYGENT_API_KEY", "pg_live_x\n")
    assert _settings.backend(None, " http://127.0.0.1:9\n", None) == ("pg_live_x", "http://127.0.0.1:9")


@pytest.mark.parametrize("serve", [silent, dripping, dripping_body])
def test_init_waits_two_seconds_at_most(tmp_path, serve):
    """A backend that takes the connection and does not answer, or does so for ever, delays no start."""
    with listener(serve) as url:
        began_s = time.monotonic()
        with pytest.warns(PaygentBackendUnreachable):
            pg = Paygent.init(KEY, url, tmp_path / "p.db", auto_instrument=False)
        took_s = time.monotonic() - began_s
        assert not pg.backend_reachable
        assert not pg.is_connected
    pg.shutdown(2.0)
    assert took_s < INIT_S_MAX


@pytest.mark.parametrize(
    ("mood", "error"),
    [
        ("refuses connections", PaygentBackendUnreachable),
        ("answers 500", PaygentBackendUnreachable),
        ("answers 404", PaygentBackendUnreachable),
        ("answers garbage", PaygentBackendUnreachable),
        ("answers an empty object", PaygentBackendUnreachable),
        ("redirects", PaygentBackendUnreachable),
        ("cuts the connection before", PaygentBackendUnreachable),
        ("answers 401", PaygentAuthInvalid),
    ],
)
def test_init_says_what_is_wrong(server, tmp_path, mood, error):
    """A warning, or with ``strict_backend`` an error of the same kind; neither holds the key."""
    server.mood = mood
    with pytest.warns(error) as warned:
        pg = Paygent.init(KEY, server.url, tmp_path / "p.db", auto_instrument=False)
    assert not pg.backend_reachable
    pg.shutdown(2.0)
    with pytest.raises(error) as raised:
        Paygent.init(KEY, server.url, tmp_path / "q.db", auto_instrument=False, strict_backend=True)
    assert KEY not in str(raised.value) + str([str(one.message) for one in warned])
    assert Paygent.get_instance() is None


@pytest.mark.parametrize("tail", ["", "/", API, f"{API}/", "//"])
def test_the_address_may_be_written_in_any_way(server, tmp_path, tail):
    """With or without the path of the API and a slash at the end, the same addresses are asked."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pg = Paygent.init(KEY, server.url + tail, tmp_path / "p.db", auto_instrument=False)
    try:
        assert pg.backend_reachable
        assert pg.is_connected
        pg.record_event("ada", cost=0.5)
        pg.flush()
        assert [event.user_id for event in server.ledger.events()] == ["ada"]
        assert all(path.startswith(f"{API}/") and "//" not in path for path in server.asked)
    finally:
        pg.shutdown()


# --- the breaker ------------------------------------------------------------------------------------------


class Clock:
    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


def failed(link):
    with pytest.raises(LedgerError):
        link.post("/leases", [])


@pytest.mark.parametrize(
    ("mood", "says"), [("answers 401", "api_key or PAYGENT_API_KEY"), ("answers 500", "it answered 500")]
)
def test_while_nobody_is_asked_the_reason_is_said(server, mood, says):
    """What failed first is in each error of the pause after it."""
    server.mood = mood
    link = Link(server.url, KEY, Clock())
    failed(link)
    with pytest.raises(LedgerError, match=says):
        link.post("/leases", [])
    link.close()
    assert len(server.asked) == 1


def test_our_requests_are_not_in_the_log_of_the_http_client(server, connected, caplog):
    """Once a second at INFO would be most of an app's log; what the app itself asks is logged as ever."""
    caplog.set_level(logging.INFO)
    pg = connected(server)
    pg.record_event("ada", cost=0.5)
    pg.flush()
    assert server.asked
    assert "HTTP Request" not in caplog.text
    with httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(200))) as client:
        client.get("http://127.0.0.1")
    assert caplog.text.count("HTTP Request") == 1


def test_after_a_failure_nobody_is_asked_for_a_while(server):
    """The next request fails at once and does not reach the server; after the pause one does."""
    server.mood, clock = "answers 500", Clock()
    link = Link(server.url, KEY, clock)
    failed(link)
    for _ in range(5):
        failed(link)
    assert len(server.asked) == 1
    clock.now_s += _backend_link.PAUSE_FIRST_S
    failed(link)
    assert len(server.asked) == 2
    link.close()


def test_pauses_grow_to_a_bound_and_no_two_are_alike(server):
    """Each pause is half to all of a length that doubles up to five seconds: processes come back apart."""
    server.mood, clock = "answers 500", Clock()
    links = [Link(server.url, KEY, clock) for _ in range(4)]
    for link in links:
        for number in range(6):
            failed(link)
            whole_s = min(_backend_link.PAUSE_MAX_S, _backend_link.PAUSE_FIRST_S * 2**number)
            assert whole_s / 2 <= link._pause_until_s - clock.now_s <= whole_s
            clock.now_s += whole_s
        clock.now_s += 100
    last = {round(link._pause_until_s % 100, 6) for link in links}
    assert len(last) == 4
    for link in links:
        link.close()


def test_an_answer_ends_the_pauses(server):
    """After one good answer the next failure begins with the shortest pause again."""
    server.mood, clock = "answers 500", Clock()
    link = Link(server.url, KEY, clock)
    for _ in range(5):
        failed(link)
        clock.now_s += 10
    server.mood = "well"
    assert link.post("/leases", []) == []
    server.mood = "answers 500"
    failed(link)
    assert link._pause_until_s - clock.now_s <= _backend_link.PAUSE_FIRST_S
    link.close()


# --- proxies ----------------------------------------------------------------------------------------------


def test_a_proxys_word_is_taken_for_what_is_large(server):
    """A body of some size that is answered 413 in HTML is at fault itself: it may come again, in parts."""
    link, server.body_max = Link(server.url, KEY, Clock()), 10_000
    with pytest.raises(RejectedError, match="413"):
        link.post("/leases", ["x" * 10_000])
    assert link.post("/leases", []) == []  # nothing waits
    link.close()


def test_a_proxys_word_is_not_taken_for_what_is_small(server):
    """To a few bytes, 413 is the fault of whoever says it: nobody is asked for a while."""
    link, server.body_max = Link(server.url, KEY, Clock()), 1
    failed(link)
    server.body_max = 1_000_000
    failed(link)
    assert len(server.asked) == 1
    link.close()


FORKED_IN_THE_IMPORT = """
import os, signal, sys, threading, time
from paygent.ledger import LedgerError
from paygent.ledgers._backend_link import Link

begun = threading.Event()


class Slow:
    def find_spec(self, name, path=None, target=None):
        if name in ("encodings.idna", "httpcore"):
            begun.set()
            time.sleep(0.5)


def ask():
    try:
        Link("http://localhost:9", "pg_test_x").get("/users")
    except LedgerError:
        return 0
    return 1


sys.meta_path.insert(0, Slow())
thread = threading.Thread(target=ask)
thread.start()
begun.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(ask())
thread.join()
print(os.waitpid(child, 0)[1])
"""


def test_a_child_forked_before_the_first_request_can_ask():
    """A fork while a thread loads the HTTP client leaves no import behind that never ends in the child."""
    command = [sys.executable, "-W", "ignore", "-c", FORKED_IN_THE_IMPORT]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert told.stdout.strip() == "0"
