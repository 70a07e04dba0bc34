"""The HTTP server: gunicorn, with threads that keep their connections to the database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]  # it ships no types
from prometheus_client import multiprocess

if TYPE_CHECKING:
    from paygent_django.server.run import Options

STOP_S = 15
KEEP_ALIVE_S = 75
# A worker that does not stir for so long is replaced; a request of ours takes far less.
SILENT_S = 60


class Server(BaseApplication):
    """
    The served project under gunicorn; ``run()`` ends when SIGTERM or SIGINT has been obeyed.

    *on_ready* is told the address once it is listened on; *proxies* are believed how a request has come.
    """

    def __init__(
        self,
        options: Options,
        *,
        workers: int,
        on_ready: Callable[[str], None],
        proxies: Sequence[str] = (),
    ) -> None:
        self._options = options
        self._proxies = proxies
        self._workers = workers
        self._on_ready = on_ready
        super().__init__()

    def load_config(self) -> None:
        """Tell gunicorn how to serve; nothing is read from its own configuration files."""
        host = f"[{self._options.host}]" if ":" in self._options.host else self._options.host
        settings: dict[str, Any] = {
            "bind": f"{host}:{self._options.port}",
            "workers": self._workers,
            "worker_class": "gthread",
            "threads": self._options.threads,
            "keepalive": KEEP_ALIVE_S,
            "graceful_timeout": STOP_S,
            "timeout": SILENT_S,
            "limit_request_line": 8190,
            "when_ready": self._ready,
            "post_worker_init": _begin,
            "child_exit": _end,
            "control_socket_disable": True,
            "logconfig_dict": {},
            "logger_class": "paygent_django.server.listener_log.Log",
        }
        if self._proxies:
            settings["forwarded_allow_ips"] = ",".join(self._proxies)
        for name, value in settings.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Any:
        """Load the application, in each worker."""
        from paygent_django.server.wsgi import application

        return application

    def _ready(self, arbiter: Any) -> None:
        host, port = arbiter.LISTENERS[0].sock.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        self._on_ready(f"http://{shown}:{port}")


def _begin(_worker: Any) -> None:
    """In a worker that is about to serve: deliver what webhooks are due."""
    from paygent_django import webhooks

    webhooks.start()


def _end(_arbiter: Any, worker: Any) -> None:
    """In the parent, after a worker: its gauges leave the sums."""
    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]  # it ships no types for this
