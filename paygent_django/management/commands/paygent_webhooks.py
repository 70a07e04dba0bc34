"""``paygent_webhooks``: deliveries, sent."""

from __future__ import annotations

import signal
import threading
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from paygent_django import webhooks


class Command(BaseCommand):
    """``paygent_webhooks`` sends what is due until it is stopped; any number of them may run."""

    help = "Send webhooks, until SIGTERM or Ctrl-C; paygent serve does so by itself."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add ``--once``."""
        parser.add_argument("--once", action="store_true", help="send what is due now, and end: for cron")

    def handle(self, **options: Any) -> None:
        """Send."""
        if options["once"]:
            self.stdout.write(f"{webhooks.deliver_due()} tried")
            return
        ended = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ended.set())
        webhooks.start()
        ended.wait()
        webhooks.stop()
