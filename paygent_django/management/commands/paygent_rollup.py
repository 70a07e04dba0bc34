"""``paygent_rollup``: roll-ups, built anew."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from paygent_django import services
from paygent_django.management._command import PaygentCommand, day, progress, project_named, today


class Command(PaygentCommand):
    """``paygent_rollup --since 2026-01-01``: needed after a repair only, and joins shards."""

    help = "Build daily and monthly roll-ups anew from the events, whole months at a time."
    can_dry_run = True

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the months."""
        super().add_arguments(parser)
        parser.add_argument("--since", type=day, help="a day of the first month (default: this month)")
        parser.add_argument("--until", type=day, help="a day of the last month (default: this month)")

    def run(self, **options: Any) -> Any:
        """Build."""
        since, until = options["since"] or today(), options["until"] or today()
        project = project_named(options["project"])
        built = services.rebuild(project, since, until, dry_run=options["dry_run"])
        months = progress(built, "building", how=options["format"])
        return {"months": [f"{month:%Y-%m}" for month in months]}
