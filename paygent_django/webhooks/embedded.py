"""
Webhooks of an app that carries Paygent in itself: its ledger says that it has committed, and a thread tells.

What there is to tell is found out, queued and delivered by the thread of ``worker``, which the first of it
starts. With ``PAYGENT["WEBHOOKS"] = "command"`` that thread delivers nothing: ``manage.py paygent_webhooks``
does. A project without an address costs one look every two seconds.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Collection, Sequence

from paygent.ledger import GateRow
from paygent_django import conf
from paygent_django.database import database_alias, webhooks_by
from paygent_django.ledger import DjangoLedger
from paygent_django.webhooks import worker

LOOKS_EVERY_S = 2.0
CLOSES_WITHIN_S = 2.0


class Embedded:
    """Hears of what one ledger has committed, on the ledger's thread; never fails, and never waits."""

    def __init__(self) -> None:
        self._looks_again_s = 0.0
        self._is_heard = False

    def posted(self, ledger: DjangoLedger, users: Collection[str]) -> None:
        """Events of *users* are in the books."""
        _ledgers.add(ledger)
        if users and self._is_listening(ledger):
            start()

    def decided(self, ledger: DjangoLedger, gates: Sequence[GateRow]) -> None:
        """Decisions are in the audit trail."""
        if gates and self._is_listening(ledger):
            start()

    def made(self, ledger: DjangoLedger, users: Collection[str]) -> None:
        """Rows of *users* were made: those who are the project's own users are linked to them."""
        if (
            conf.options().get_user_id is None
        ):  # else an id may be anything, a team's that looks like a user's
            ledger.link(users)

    def closed(self, ledger: DjangoLedger) -> None:
        """Nothing more will come: tell what is left, within a bounded time; the last ends the thread."""
        _ledgers.discard(ledger)
        if not _ledgers and worker.is_running():
            worker.finish(CLOSES_WITHIN_S)

    def _is_listening(self, ledger: DjangoLedger) -> bool:
        if ledger.alias != database_alias():  # the tables of services and admin are there
            return False
        now_s = time.monotonic()
        if now_s >= self._looks_again_s:
            self._looks_again_s = now_s + LOOKS_EVERY_S
            self._is_heard = ledger.has_webhooks()
        return self._is_heard


def start() -> None:
    """Deliver from now on, if this process has metered calls of an app that carries Paygent in itself."""
    if _ledgers:
        worker.start(delivers=webhooks_by() == "thread")
    worker.poke()


_ledgers: weakref.WeakSet[DjangoLedger] = weakref.WeakSet()
