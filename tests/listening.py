"""
Processes of tests that listen on a port of the loopback which nobody else has.

A port is free when it is looked for, and a process listens on it a second later. In between nobody takes it:
it is none of those that the kernel gives away by itself (to a ``bind`` to port 0, and to everybody who
connects to something), and each worker of a test run draws from a share of its own. Where a stranger took it
all the same, the process is started again on another one.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import SystemRandom
from typing import Any

import httpx
import psutil

START_S_MAX = 60.0  # some seconds, on a machine where everything takes its time
STARTS_MAX = 5
_FIRST, _FEW = 11_000, 1_000  # browsers refuse to talk to port 10 080
SHARES = 8
_TAKEN = re.compile(r"address already in use|address in use|connection in use|could not bind", re.IGNORECASE)
_chance = SystemRandom()  # the usual one is seeded by some tests
_given: set[int] = set()


def free_port(beside: int = 0) -> int:
    """A port that nobody listens on, and that this run gives to nobody else; so is the one *beside* it."""
    ports = _ports(beside)
    share = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or 0) % SHARES
    while True:
        port = ports[_chance.randrange(len(ports) // SHARES) * SHARES + share]
        pair = {port, port + beside}
        if not pair & _given and all(map(_is_free, pair)):
            _given.update(pair)
            return port


def is_taken(said: str) -> bool:
    """Whether a process that *said* this has ended since its port was taken."""
    return _TAKEN.search(said) is not None


def _ports(beside: int) -> range:
    """Those below the kernel's own; all of them where it keeps no more than a few for others."""
    try:
        words = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()
        below = range(_FIRST, int(words[0]) - beside)
    except OSError:  # as on macOS
        below = range(_FIRST, 49_152 - beside)
    return below if len(below) >= _FEW else range(_FIRST, 65_536 - beside)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


class Listening:
    """
    One process of Python that serves HTTP, and the log of all it says; it and its children are one group.

    *command* makes the arguments from the port; *options* are those of ``subprocess.Popen``. The constructor
    does not wait: several may start at once.
    """

    def __init__(self, command: Callable[[int], Sequence[str]], log: Path, **options: Any) -> None:
        self._command = command
        self._log = log
        self._options = options
        self._starts = 0
        self._start()

    def _start(self) -> None:
        self._starts += 1
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self._command(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._options,
            )

    @property
    def pid(self) -> int:
        """The process id, which is that of its group too."""
        return self.process.pid

    def until_up(self, path: str = "/") -> Listening:
        """Wait until GET *path* is answered with success; RuntimeError with its log where it never is."""
        ends_s = time.monotonic() + START_S_MAX
        while not self._listens():
            if self.process.poll() is not None and self._starts < STARTS_MAX and is_taken(self.said()):
                self._start()
            elif self.process.poll() is not None or time.monotonic() > ends_s:
                raise RuntimeError(f"the server does not start:\n{self.said()[-3000:]}")
            time.sleep(0.05)
        # Asked once: some tests count what this costs.
        answer = httpx.get(f"{self.url}{path}", trust_env=False, verify=False, timeout=START_S_MAX)
        if answer.is_error:
            raise RuntimeError(f"GET {path}: {answer.status_code}\n{self.said()[-3000:]}")
        return self

    def _listens(self) -> bool:
        """Whether it listens on its port, and not somebody else."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return any(
                found.status == psutil.CONN_LISTEN and found.laddr.port == self.port
                for found in psutil.Process(self.pid).net_connections("tcp")
            )
        return False

    def said(self) -> str:
        """What it has printed so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def end(self, within_s: float) -> None:
        """SIGTERM, and wait until it has ended by itself."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(within_s)

    def kill(self) -> None:
        """End it and its children, whatever they are at; what they said is shown where a test failed."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait(START_S_MAX)
        sys.stderr.write(self.said())
