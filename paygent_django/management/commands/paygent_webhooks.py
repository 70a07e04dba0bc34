"""``paygent_webhooks``: deliveries, sent."""

from __future__ import annotations

import json
import signal
import threading
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from paygent_django import webhooks
from paygent_django.management._command import progress


class Command(BaseCommand):
    """``paygent_webhooks`` sends what is due until it is stopped; any number of them may run."""

    help = "Send webhooks, until SIGTERM or Ctrl-C; paygent serve does so by itself."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add ``--once``, ``--dry-run`` and ``--format``."""
        parser.add_argument("--once", action="store_true", help="send what is due now, and end: for cron")
        parser.add_argument("--dry-run", action="store_true", help="say how many are due, and send none")
        parser.add_argument("--format", choices=("text", "json"), default="text", help="how to say it")

    def handle(self, **options: Any) -> None:
        """Send."""
        if options["once"] or options["dry_run"]:
            did, many = ("due", webhooks.count_due()) if options["dry_run"] else ("tried", _all_due(options))
            as_json = options["format"] == "json"
            self.stdout.write(json.dumps({did: many}) if as_json else f"{many} {did}")
            return
        ended = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ended.set())
        webhooks.start()
        ended.wait()
        webhooks.stop()


def _all_due(options: dict[str, Any]) -> int:
    webhooks.tell()
    steps = iter(webhooks.deliver_due, 0)
    return sum(progress(steps, "delivering", how=options["format"]))
