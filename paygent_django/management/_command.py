"""What the commands share: the project, the output as text or JSON, and errors that name what was wrong."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timezone
from typing import Any, TypeVar

from django.core.management.base import BaseCommand, CommandError

from paygent_django.database import project_name
from paygent_django.models import Project
from paygent_django.services import ServiceError, create_project, find_project

T = TypeVar("T")


class PaygentCommand(BaseCommand):
    """
    A command on one project.

    ``run`` does the work and returns what is to be shown: a value that JSON can write. As text, lists of
    objects are tables.
    """

    can_dry_run = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add ``--project``, ``--format`` and, where it makes sense, ``--dry-run``."""
        parser.add_argument("--project", default=project_name(), help="the tenant (default: %(default)s)")
        parser.add_argument(
            "--format", choices=("text", "json"), default="text", help="how to print the result"
        )
        if self.can_dry_run:
            parser.add_argument(
                "--dry-run", action="store_true", help="say what would be done, and do nothing"
            )

    def handle(self, **options: Any) -> None:
        """Run, and print the result."""
        try:
            result = self.run(**options)
        except ServiceError as error:
            raise CommandError(str(error)) from error
        self.show(result, options["format"])

    def run(self, **options: Any) -> Any:
        """Do the work."""
        raise NotImplementedError  # abstract: each command does its own

    def show(self, result: Any, how: str) -> None:
        """Print *result*."""
        if how == "json":
            self.stdout.write(json.dumps(result, indent=2, ensure_ascii=False, default=str))
        elif isinstance(result, str):
            self.stdout.write(result)
        elif isinstance(result, Mapping):
            for name, value in result.items():
                self.stdout.write(f"{name}: {_cell(value)}")
        else:
            for line in table(result):
                self.stdout.write(line)


def project_named(name: str, *, make: bool = False) -> Project:
    """
    The project of that name; *make* it where there is none.

    Raises:
        CommandError: There is none.
    """
    found = find_project(name)
    if found is not None:
        return found
    if make:
        return create_project(name)
    raise CommandError(f"there is no project {name!r}")


def table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Lines of a table with one column per field."""
    if not rows:
        yield "(none)"
        return
    names = list(rows[0])
    cells = [names, *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    for line in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def progress(items: Iterable[T], what: str, *, how: str) -> Iterator[T]:
    """*items*, with a moving bar on a terminal where ``rich`` is installed."""
    if how == "json" or not sys.stderr.isatty():
        yield from items
        return
    try:
        from rich.console import Console
        from rich.progress import track
    except ImportError:
        yield from items
        return
    yield from track(items, description=what, console=Console(stderr=True), transient=True)


def day(text: str) -> date:
    """
    The day that an argument names, as in 2026-04-01.

    Raises:
        CommandError: It is none.
    """
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise CommandError(f"{text!r} is no day: write it as in 2026-04-01") from error


def today() -> date:
    """The day in UTC."""
    return datetime.now(timezone.utc).date()


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_cell, value))
    # Users choose names: none of them moves the cursor of whoever reads this, or makes up a row.
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in str(value))
