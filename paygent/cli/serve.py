"""``paygent serve``: the backend, ready to use."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from typing import Any

NEEDS = ("django", "ninja", "gunicorn", "whitenoise", "prometheus_client")
PORT = 8765


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Make a type of ``argparse``, whose usage errors name the option: a number from *least* to *most*."""

    def number(text: str) -> int:
        value = int(text)
        if value < least or (most is not None and value > most):
            bounds = f"at least {least}" if most is None else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"must be {bounds}, not {value}")
        return value

    return number


PORTS = whole_number(0, 65_535)


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "serve",
        help="the backend: REST API, admin and webhooks, on SQLite or PostgreSQL",
        description=(
            "Serves the REST API under /api/v1 and the admin under /admin. Makes its tables, a first "
            "project, an admin's login and an API key, and prints these once (PAYGENT_BOOTSTRAP_KEY "
            "chooses the key instead)."
        ),
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: the loopback)")
    parser.add_argument(
        "--port", type=PORTS, default=PORT, help=f"port; 0 takes a free one (default: {PORT})"
    )
    parser.add_argument(
        "--database",
        metavar="URL",
        help="sqlite:////path/to/file or postgresql://user:password@host/name "
        "(default: PAYGENT_DATABASE, else ~/.paygent/server.db)",
    )
    parser.add_argument(
        "--workers", type=whole_number(0), default=0, help="processes (default: by core; one on SQLite)"
    )
    parser.add_argument(
        "--threads", type=whole_number(1), default=8, help="threads of each process (default: 8)"
    )
    parser.set_defaults(run=run, needs=NEEDS, extra="server")


def run(options: argparse.Namespace) -> int:
    """Serve until interrupted; returns the exit status."""
    # By name: the command line is below the frameworks, and loads one only where it is asked for.
    server = importlib.import_module("paygent_django.server.run")
    given = server.Options(options.host, options.port, options.database, options.workers, options.threads)
    status: int = server.serve(given)
    return status
