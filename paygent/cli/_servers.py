"""The two servers of the demo: the example app, and the loopback LLM server behind it."""

from __future__ import annotations

import importlib.util
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from paygent.testing.llm_server import LLMServer

HOST = "127.0.0.1"
START_S_MAX = 15.0
STOP_S_MAX = 5.0
_KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY")


def app_folder() -> Path:
    """
    Return the folder of the example app: beside this file in an installed wheel, else in the project.

    Raises:
        FileNotFoundError: Neither is there.
    """
    here = Path(__file__).resolve().parent
    places = (here / "_chat_starlette", here.parents[1] / "example_apps" / "chat_starlette")
    for place in places:
        if (place / "app.py").is_file():
            return place
    raise FileNotFoundError(f"the example app is missing; looked in {places[0]} and {places[1]}")


def load_app(folder: Path) -> Any:
    """Import the example app, which is a file and no package; its clients read the environment then."""
    spec = importlib.util.spec_from_file_location("paygent_demo_chat", folder / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.app


@contextmanager
def providers(*, live: bool, chunk_latency_s: float) -> Iterator[str]:
    """Have both SDKs talk to the loopback server, or leave them to the real providers; yields what it is."""
    if live:
        given = [key for key in _KEYS if os.environ.get(key)]
        yield f"the real providers ({', '.join(given)})"
        return
    with LLMServer(latency_s=0.06, chunk_latency_s=chunk_latency_s, reply_tokens=120) as server:
        settings = {
            "OPENAI_BASE_URL": server.openai_base_url,
            "ANTHROPIC_BASE_URL": server.anthropic_base_url,
            **dict.fromkeys(_KEYS, "sk-loopback"),
        }
        with _environment(settings):
            yield f"a loopback server at {server.url}: no key, no cost"


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def serving(app: Any, port: int) -> Iterator[str]:
    """
    Serve *app* on a thread of this process; yields its URL.

    Raises:
        OSError: The port is taken.
        RuntimeError: The app did not start.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        server = _Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, args=([listener],), name="paygent-demo-app", daemon=True)
        thread.start()
        try:
            if not server.is_up.wait(START_S_MAX) or not server.started:
                raise RuntimeError("the example app did not start")
            yield f"http://{HOST}:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(STOP_S_MAX)


class _Server(uvicorn.Server):
    """A server that says when it is up, or has failed to come up."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.is_up.set()
