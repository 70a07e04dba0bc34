"""``paygent manage``: Django's commands, on the database that ``paygent serve`` serves."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

from paygent.cli.serve import NEEDS


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "manage",
        help="a command of Django on the served database, such as changepassword or paygent_apikey",
        description="paygent manage [--database URL] COMMAND …; paygent manage help lists the commands.",
    )
    parser.add_argument("--database", metavar="URL", help="as for paygent serve")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="COMMAND …")
    parser.set_defaults(run=run, needs=NEEDS, extra="server")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    server = importlib.import_module("paygent_django.server.run")
    status: int = server.manage(options.arguments, options.database)
    return status
