"""What the servers of the tests rely on: a port of their own, and another try where it was taken."""

import socket

import listening
import pytest
from listening import SHARES, STARTS_MAX, Listening, free_port


@pytest.fixture
def start(tmp_path):
    """Start a server of Python's own of an empty folder."""
    started = []

    def start():
        command = ["-m", "http.server", "--bind", "127.0.0.1"]
        started.append(Listening(lambda port: [*command, str(port)], tmp_path / "log", cwd=tmp_path))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def taken():
    """A port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_no_port_is_given_twice(monkeypatch):
    """One worker never gives a port twice, and two workers never give the same one."""
    ports = []
    for worker in ("gw0", "gw1"):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        ports.append({free_port() for _ in range(50)})
    assert [len(given) for given in ports] == [50, 50]
    assert [{port % SHARES for port in given} for given in ports] == [{0}, {1}]


def test_a_port_beside_is_free_too():
    """A server that listens on a second port, some way above, finds both of them free."""
    port = free_port(beside=10_000)
    for number in (port, port + 10_000):
        socket.create_server(("127.0.0.1", number)).close()


def test_a_port_that_somebody_listens_on_is_not_free(taken):
    """What somebody listens on is never given."""
    assert not listening._is_free(taken)


def test_a_server_whose_port_was_taken_is_started_on_another(start, taken, monkeypatch):
    """A port that somebody takes before the server listens on it costs another start, and no failure."""
    ports = [taken]
    monkeypatch.setattr(listening, "free_port", lambda: ports.pop() if ports else free_port())
    server = start()
    assert server.port == taken
    assert server.until_up().port != taken


def test_a_server_that_finds_no_port_says_so(start, taken, monkeypatch):
    """Where every port is taken there are some tries, and an error with what the server said."""
    ports = [taken] * STARTS_MAX
    monkeypatch.setattr(listening, "free_port", ports.pop)
    with pytest.raises(RuntimeError, match="Address already in use"):
        start().until_up()
    assert ports == []
