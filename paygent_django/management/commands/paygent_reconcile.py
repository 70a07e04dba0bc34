"""``paygent_reconcile``: every counter against the rows it counts."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

from django.core.management.base import CommandError

from paygent_django import services
from paygent_django.management._command import PaygentCommand, progress, project_named


class Command(PaygentCommand):
    """``paygent_reconcile [--fix]``: ends with status 1 where a counter differs."""

    help = "Compute every counter anew from the events, and report what differs."
    can_dry_run = True

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add ``--fix``."""
        super().add_arguments(parser)
        parser.add_argument(
            "--fix", action="store_true", help="set totals and grants to what the rows add up to"
        )

    def run(self, **options: Any) -> Any:
        """Compare, and mend where that is asked for."""
        project = project_named(options["project"])
        mends = options["fix"] and not options["dry_run"]
        mended = sum(1 for _ in _shown(services.mend(project), options)) if mends else 0
        found = list(_shown(services.reconcile(project), options))
        shown = [difference._asdict() for difference in found]
        return {"differences": len(found), "mended": mended, "found": shown}

    def show(self, result: Any, how: str) -> None:
        """Print; as text, one line per difference."""
        if how == "json":
            super().show(result, how)
        else:
            self.stdout.write(f"{result['differences']} differences, {result['mended']} mended")
            if result["found"]:
                super().show(result["found"], how)
        if result["differences"]:
            raise CommandError(f"{result['differences']} counter(s) differ from the rows they count")


def _shown(differences: Iterator[services.Difference], options: dict[str, Any]) -> Iterator[Any]:
    return progress(differences, "comparing", how=options["format"])
