"""``paygent serve`` as a process of its own, on a free port of the loopback."""

import contextlib
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
from listening import START_S_MAX, STARTS_MAX, free_port, is_taken


class BackendServer:
    """
    The backend in its own process: ``url``, ``key``, and what it has said in ``log``.

    *database* is a URL; by default a SQLite file in *folder*, which is the server's home too.
    """

    def __init__(self, folder, database=None, key=None, **environment):
        self.folder = Path(folder)
        self.database = database or f"sqlite:///{self.folder / 'server.db'}"
        self.key = key or "pg_live_" + secrets.token_urlsafe(24)
        self.log = self.folder / "server.log"
        self._port = free_port()  # it stays its own when it is started again
        self._starts = 0
        self._environment = environment
        self._process = None

    def start(self, *options):
        """Start, and wait until it says where it listens."""
        command = [sys.executable, "-m", "paygent.cli", "serve", "--port", str(self._port)]
        command += [*(("--database", self.database) if self.database else ()), *options]
        environment = {**os.environ, "HOME": str(self.folder), "PAYGENT_BOOTSTRAP_KEY": self.key}
        environment |= self._environment
        environment = {name: value for name, value in environment.items() if value is not None}
        self._starts += 1
        began = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        ends_s = time.monotonic() + START_S_MAX
        while (found := re.search(r"Paygent serves (\S+)", self.said()[began:])) is None:
            has_ended = self._process.poll() is not None
            if has_ended and self._starts < STARTS_MAX and is_taken(self.said()[began:]):
                self._port = free_port()
                return self.start(*options)
            if has_ended or time.monotonic() > ends_s:
                raise RuntimeError(f"the server does not start:\n{self.said()[-3000:]}")
            time.sleep(0.05)
        self.url = found[1]
        return self

    def said(self):
        """Everything it wrote to its standard output and error."""
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""

    @property
    def api(self):
        """The address of the API."""
        return f"{self.url}/api/v1"

    @property
    def headers(self):
        return {"Authorization": f"Bearer {self.key}"}

    def client(self, key=None):
        """An HTTP client of the API with a key of the server's, or *key*."""
        return httpx.Client(
            base_url=self.api,
            headers={"Authorization": f"Bearer {key or self.key}"},
            timeout=60.0,
            trust_env=False,
        )

    @property
    def pid(self):
        return self._process.pid

    def stop(self):
        """SIGTERM; returns the exit status."""
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(30)
        self._process = None
        return status

    def kill(self):
        """``kill -9`` of it and its workers: they are a process group of their own."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(30)
            self._process = None


@contextlib.contextmanager
def running(database=None, *options, **environment):
    """A backend that is up within the block."""
    with tempfile.TemporaryDirectory(prefix="paygent-backend-") as folder:
        server = BackendServer(folder, database, **environment)
        try:
            yield server.start(*options)
        finally:
            server.kill()
