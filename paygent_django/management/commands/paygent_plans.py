"""``paygent_plans``: plans from a file, and into one."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from paygent_django import services
from paygent_django.management._command import PaygentCommand, project_named


class Command(PaygentCommand):
    """``paygent_plans apply plans.toml``, ``paygent_plans export [plans.yaml]``, ``paygent_plans list``."""

    help = "Apply the plans of a TOML or YAML file, export them to one, or list them."
    can_dry_run = True

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the action and the file."""
        super().add_arguments(parser)
        parser.add_argument("action", choices=("apply", "export", "list"))
        parser.add_argument(
            "file", nargs="?", help="plans.toml or .yaml (export: standard output by default)"
        )

    def run(self, **options: Any) -> Any:
        """Do the action."""
        action, file = options["action"], options["file"]
        if action == "apply":
            return self._apply(file, options)
        project = project_named(options["project"])
        if action == "list":
            return [_shown(plan) for plan in services.plans_of(project)]
        text = services.export_plans(project, file or "plans.toml")
        if file is None or options["dry_run"]:
            return text
        Path(file).write_text(text, "utf-8")
        return {"written": file}

    def _apply(self, file: str | None, options: dict[str, Any]) -> Any:
        if file is None:
            raise services.ServiceError("file", "name the file to apply")
        specs = services.read_plan_file(file)
        project = services.find_project(options["project"])
        if project is None and options["dry_run"]:
            return [services.PlanChange(spec.name, "new", ())._asdict() for spec in specs]
        project = project or services.create_project(options["project"])
        changes = services.apply_plans(project, specs, dry_run=options["dry_run"], by="paygent_plans")
        return [change._asdict() for change in changes]


def _shown(plan: Any) -> dict[str, Any]:
    version = plan.current
    return {
        "name": plan.name,
        "label": plan.label,
        "version": version.number if version else None,
        "price": version and services.price_of(version.price_nano),
        "currency": version and version.currency,
        "interval": version and version.interval,
        "rank": version and version.rank,
        "archived": plan.is_archived,
    }
