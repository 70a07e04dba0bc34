"""``paygent_prune``: old rows, removed."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from paygent.core.windows import from_us
from paygent_django import services
from paygent_django.management._command import PaygentCommand, progress, project_named
from paygent_django.services._base import now_us

_DAY_US = 86_400_000_000
_DAYS_MIN = 62  # the longest month twice: what is younger may belong to a running period


class Command(PaygentCommand):
    """``paygent_prune --days 400``: events of past periods, decisions, deliveries, ended sessions."""

    help = "Remove rows that are older than a number of days; roll-ups, plans and users stay."
    can_dry_run = True

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the age."""
        super().add_arguments(parser)
        parser.add_argument(
            "--days", type=int, default=400, help="the age from which on to remove (default: %(default)s)"
        )

    def run(self, **options: Any) -> Any:
        """Remove, or count."""
        if options["days"] < _DAYS_MIN:
            raise services.ServiceError("--days", f"must be at least {_DAYS_MIN}")
        before_us = now_us() - options["days"] * _DAY_US
        project = project_named(options["project"])
        pruned = services.prune(
            project,
            before_us=before_us,
            dry_run=options["dry_run"],
            passing=lambda users: progress(users, "removing", how=options["format"]),
        )
        return {"before": from_us(before_us).isoformat(timespec="seconds"), **pruned._asdict()}
