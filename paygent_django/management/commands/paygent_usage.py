"""``paygent_usage``: what users have used."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

from paygent.core.balance import UNLIMITED
from paygent.core.plan import NUSD_PER_USD
from paygent.core.windows import from_us
from paygent_django import services
from paygent_django.database import database_alias
from paygent_django.management._command import PaygentCommand, progress, project_named
from paygent_django.models import EndUser

_USERS_PER_STEP = 400


class Command(PaygentCommand):
    """``paygent_usage [USER …]``: cost, tokens and limit in the running period, most first."""

    help = "Show what users have used in their running billing period."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the users."""
        super().add_arguments(parser)
        parser.add_argument("user", nargs="*", help="ids of users; all of the project by default")
        parser.add_argument("--top", type=int, default=50, help="how many to show (default: %(default)s)")

    def run(self, **options: Any) -> Any:
        """Read the usage, a page of users at a time."""
        project = project_named(options["project"])
        users = EndUser.objects.using(database_alias()).filter(project=project).order_by("pk")
        if options["user"]:
            users = users.filter(external_user_id__in=options["user"])
            missing = set(options["user"]) - {user.external_user_id for user in users}
            if missing:
                raise services.ServiceError("user", f"there is no user {min(missing)!r}", "unknown")
        found = list(progress(_usage(users), "reading", how=options["format"]))
        found.sort(key=lambda usage: -usage.cost_nusd)
        return [_shown(usage) for usage in found[: max(0, options["top"])]]


def _usage(users: Any) -> Iterator[services.Usage]:
    last_pk = 0
    while page := list(users.filter(pk__gt=last_pk)[:_USERS_PER_STEP]):
        last_pk = page[-1].pk
        yield from services.usage_of_many(page)


def _shown(usage: services.Usage) -> dict[str, Any]:
    cap = usage.terms.period.cap
    return {
        "user": usage.user.external_user_id,
        "plan": usage.plan,
        "cost_usd": usage.cost_nusd / NUSD_PER_USD,
        "limit_usd": None if cap >= UNLIMITED else cap / NUSD_PER_USD,
        "tokens": usage.tokens,
        "spent": usage.spent_scope,
        "resets": from_us(usage.window.end_us).isoformat(timespec="seconds"),
    }
