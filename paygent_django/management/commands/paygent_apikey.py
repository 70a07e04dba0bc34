"""``paygent_apikey``: the keys of a project."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from paygent.core.windows import from_us
from paygent_django import services
from paygent_django.database import database_alias
from paygent_django.management._command import PaygentCommand, project_named
from paygent_django.models import ApiKey


class Command(PaygentCommand):
    """``paygent_apikey create --project NAME``, ``list`` and ``revoke KEY``."""

    help = "Create, list or revoke the API keys of a project. A key is printed once, when it is created."
    can_dry_run = True

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the action, and what a new key is to be."""
        super().add_arguments(parser)
        parser.add_argument("action", choices=("create", "list", "revoke"))
        parser.add_argument("key", nargs="?", help="revoke: the beginning of the key, as listed")
        parser.add_argument("--name", default="", help="create: what the key is for")
        parser.add_argument(
            "--scope",
            action="append",
            choices=services.SCOPES,
            help="create: what it may do (default: read, ingest)",
        )
        parser.add_argument("--test", action="store_true", help="create: a key for tests (pg_test_…)")

    def run(self, **options: Any) -> Any:
        """Do the action."""
        if options["action"] == "create":
            return self._create(options)
        project = project_named(options["project"])
        keys = ApiKey.objects.using(database_alias()).filter(project=project).order_by("pk")
        if options["action"] == "list":
            return [_shown(key) for key in keys]
        key = keys.filter(lookup=options["key"]).first() if options["key"] else None
        if key is None:
            raise services.ServiceError(
                "key", "name a key of this project by its beginning, as listed", "unknown"
            )
        if not options["dry_run"]:
            services.revoke(key)
            key.refresh_from_db()
        return _shown(key)

    def _create(self, options: dict[str, Any]) -> Any:
        scopes = options["scope"] or ("read", "ingest")
        if options["dry_run"]:
            return {"would_create": {"project": options["project"], "scopes": list(scopes)}}
        project = project_named(options["project"], make=True)
        made = services.create_key(project, options["name"], scopes=scopes, live=not options["test"])
        if options["format"] == "json":
            return {**_shown(made.row), "secret": made.secret}
        self.stderr.write("This is the key. It is not stored, and is never shown again:")
        return made.secret


def _shown(key: ApiKey) -> dict[str, Any]:
    def moment(at_us: int | None) -> str | None:
        return None if at_us is None else from_us(at_us).isoformat(timespec="seconds")

    return {
        "key": key.lookup,
        "name": key.name,
        "scopes": list(key.scopes),
        "created": moment(key.created_us),
        "last_used": moment(key.last_used_us),
        "revoked": moment(key.revoked_us),
    }
