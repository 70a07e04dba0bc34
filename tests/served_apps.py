"""
Apps behind real servers, each in a process of its own, for tests of the examples.

All of them are started at once; a test waits for the one that it wants.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from listening import Listening

from paygent.testing.llm_server import LLMServer

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ("chat_starlette", "chat_fastapi", "chat_flask", "chat_django")


def start(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> Listening:
    """Start one app in a process, with its files in *folder*."""
    given = {"HOME": str(folder), "TMPDIR": str(folder), "CHAT_DATABASE": str(folder / "chat.sqlite3")}
    return Listening(
        lambda port: [*command, "--port", str(port)],
        folder / "log",
        cwd=ROOT,
        env={**os.environ, **given, **environment},
    )


@contextlib.contextmanager
def served(
    commands: Mapping[str, Sequence[str]], folder: Path, llm: LLMServer | None = None
) -> Iterator[dict[str, Listening]]:
    """Start all *commands*, with both SDKs talking to *llm* (without one: no provider's key is given)."""
    environment = {} if llm is None else keys_of(llm)
    running: dict[str, Listening] = {}
    try:
        for name, command in commands.items():
            (folder / name).mkdir()
            running[name] = start(command, environment, folder / name)
        yield running
    finally:
        for app in running.values():
            app.kill()


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
