"""``paygent_reconcile``: every counter against the rows it counts."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from paygent_django import services
from paygent_django.management._command import PaygentCommand, progress, project_named


class Command(PaygentCommand):
    """``paygent_reconcile [--fix]``: ends with status 1 where a counter differs."""

    help = "Compute every counter anew from the events, and report what differs."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add ``--fix``."""
        super().add_arguments(parser)
        parser.add_argument(
            "--fix", action="store_true", help="set totals and grants to what the rows add up to"
        )

    def run(self, **options: Any) -> Any:
        """Compare, and mend where that is asked for."""
        project = project_named(options["project"])
        mended = services.mend(project) if options["fix"] else 0
        found = list(progress(services.reconcile(project), "comparing", how=options["format"]))
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
