"""``paygent serve`` and ``paygent manage``, from the side of Django."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

from paygent_django.server import environment
from paygent_django.server.environment import DATABASE, DEFAULT_FILE, SetupError

SETTINGS = "paygent_django.server.settings"
STOP_S = 15


class Options(NamedTuple):
    """How to serve. ``workers`` of 0: one on SQLite, else one per core, at most four."""

    host: str = "127.0.0.1"
    port: int = 8765
    database: str | None = None
    workers: int = 0
    threads: int = 8


def serve(options: Options) -> int:
    """Set up what is missing, and serve until told to stop; returns the exit status."""
    _share_metrics()
    try:
        set_up(options.database)
        from paygent_django.server import bootstrap  # needs Django's settings

        proxies = environment.proxies()
        made = bootstrap.prepare()
    except SetupError as error:
        sys.stderr.write(f"paygent serve: {error}\n")
        return 2
    _print(_shown_once(made))  # whatever comes of listening: nobody can look it up later
    from django.db import connections

    vendor = connections["default"].vendor
    connections.close_all()  # workers open their own
    from paygent_django.server.listener import Server  # a library of the extra "server"

    workers = options.workers or _workers(vendor)
    Server(options, workers=workers, on_ready=_say, proxies=proxies).run()
    return 0


def manage(arguments: Sequence[str], database: str | None = None) -> int:
    """Run a command of Django on the served database; returns the exit status."""
    try:
        set_up(database)
    except SetupError as error:
        sys.stderr.write(f"paygent manage: {error}\n")
        return 2
    from django.core.management import ManagementUtility
    from django.db import Error

    try:
        ManagementUtility(["paygent manage", *arguments]).execute()
    except Error:
        from paygent_django.server import bootstrap  # needs Django's settings

        reason = bootstrap.why_not()
        if reason is None:
            raise
        sys.stderr.write(f"paygent manage: {reason}\n")
        return 2
    return 0


def set_up(database: str | None = None) -> None:
    """
    Configure Django as the served project.

    Raises:
        SetupError: The database cannot be meant.
    """
    if database is not None:
        os.environ[DATABASE] = database
    os.environ["DJANGO_SETTINGS_MODULE"] = SETTINGS
    import django

    django.setup()


def _workers(vendor: str) -> int:
    return 1 if vendor == "sqlite" else max(1, min(4, os.cpu_count() or 1))


def _share_metrics() -> None:
    """A folder in which the workers' counters meet; it must be known before the first counter is made."""
    folder = tempfile.mkdtemp(prefix="paygent-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)


def _shown_once(made: Any) -> list[str]:
    lines = []
    if made.admin_password is not None:
        lines.append(f"  admin login  admin / {made.admin_password}")
    if made.key is not None:
        lines.append(f"  API key      {made.key}")
    return ["Made just now, and shown this once:", *lines, ""] if lines else []


def _say(url: str) -> None:
    api = f"  API    {url}/api/v1    (to browse it: {url}/api/v1/docs)"
    _print([f"Paygent serves {url}", api, f"  admin  {url}/admin/"])


def _print(lines: Sequence[str]) -> None:
    if lines:
        print("\n".join(lines), flush=True)  # noqa: T201  # a command speaks to who has called it


__all__ = ["DEFAULT_FILE", "Options", "manage", "serve", "set_up"]
