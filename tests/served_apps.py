"""
Apps behind real servers, each in a process of its own, for tests of the examples.

All of them are started at once; a test waits for the one that it wants.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import httpx
from real_servers import free_port

from paygent.testing.llm_server import LLMServer

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ("chat_starlette", "chat_fastapi", "chat_flask", "chat_django")
START_S_MAX = 60


class ServedApp:
    """One app in a process, with its files in *folder*; ``until_up`` waits for its first page."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = (folder / "log").open("wb+")
        given = {"HOME": str(folder), "TMPDIR": str(folder), "CHAT_DATABASE": str(folder / "chat.sqlite3")}
        self._process = subprocess.Popen(
            [sys.executable, *command, "--port", str(self.port)],
            cwd=ROOT,
            env={**os.environ, **given, **environment},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def until_up(self) -> ServedApp:
        """Wait until it serves its page; raises RuntimeError with its log where it does not."""
        ends_s = time.monotonic() + START_S_MAX
        while True:
            try:
                httpx.get(self.url, trust_env=False, timeout=START_S_MAX).raise_for_status()
            except httpx.HTTPError as error:
                is_starting = isinstance(error, httpx.TransportError) and self._process.poll() is None
                if not is_starting or time.monotonic() > ends_s:
                    raise RuntimeError(f"the app does not start: {error}\n{self.log()}") from error
                time.sleep(0.05)
            else:
                return self

    def log(self) -> str:
        """What it has printed so far."""
        self._log.seek(0)
        return self._log.read().decode()

    def stop(self) -> None:
        """End it, whatever it is at."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)
        self._log.close()


@contextlib.contextmanager
def served(
    commands: Mapping[str, Sequence[str]], folder: Path, llm: LLMServer | None = None
) -> Iterator[dict[str, ServedApp]]:
    """Start all *commands*, with both SDKs talking to *llm* (without one: no provider's key is given)."""
    environment = {} if llm is None else keys_of(llm)
    running: dict[str, ServedApp] = {}
    try:
        for name, command in commands.items():
            (folder / name).mkdir()
            running[name] = ServedApp(command, environment, folder / name)
        yield running
    finally:
        for app in running.values():
            app.stop()


def keys_of(llm: LLMServer) -> dict[str, str]:
    """The environment in which both SDKs talk to *llm*."""
    return {
        "OPENAI_BASE_URL": llm.openai_base_url,
        "ANTHROPIC_BASE_URL": llm.anthropic_base_url,
        "OPENAI_API_KEY": "any",
        "ANTHROPIC_API_KEY": "any",
    }


def readme_command(name: str) -> list[str]:
    """The one command with which the README of the example *name* says to start it."""
    readme = (ROOT / "example_apps" / name / "README.md").read_text(encoding="utf-8")
    found = re.search(r"^python (example_apps/run\.py \S+)$", readme, re.MULTILINE)
    assert found is not None
    return found[1].split()
