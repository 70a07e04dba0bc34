"""``paygent_stripe``: what Stripe said and nobody could apply."""

from __future__ import annotations

import collections
from argparse import ArgumentParser
from typing import Any

from paygent_django.contrib.stripe import handlers
from paygent_django.contrib.stripe.models import StripeEvent
from paygent_django.database import database_alias
from paygent_django.management._command import PaygentCommand, progress, project_named

_FIELDS = ("event_id", "kind", "customer_id", "subscription_id", "note")


class Command(PaygentCommand):
    """``paygent_stripe [--retry]``."""

    help = "List the events of Stripe's that wait for a price or a user to be known; --retry applies them."
    can_dry_run = True

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add ``--retry``."""
        super().add_arguments(parser)
        parser.add_argument("--retry", action="store_true", help="apply what can be applied by now")

    def run(self, **options: Any) -> Any:
        """List what is left."""
        project = project_named(options["project"])
        if options["retry"] and not options["dry_run"]:
            customers = progress(handlers.retry(project), "applying", how=options["format"])
            collections.deque(customers, maxlen=0)
        events = StripeEvent.objects.using(database_alias()).filter(project=project, outcome="unresolved")
        return list(events.order_by("pk").values(*_FIELDS))
