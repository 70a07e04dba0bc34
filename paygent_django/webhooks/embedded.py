"""
Webhooks of an app that carries Paygent in itself: its ledger says what it has committed, and a thread tells.

The ledger's own thread only notes who has spent. What there is to tell is found out, queued and delivered by
the thread of ``worker``, which the first of it starts. With ``PAYGENT["WEBHOOKS"] = "command"`` that thread
delivers nothing: ``manage.py paygent_webhooks`` does. A project without an address costs one look every two
seconds.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Collection, Sequence

from paygent.ledger import GateRow
from paygent_django import conf, services
from paygent_django.database import database_alias, webhooks_by
from paygent_django.ledger import DjangoLedger
from paygent_django.webhooks import noticing, worker

log = logging.getLogger("paygent")

LOOKS_EVERY_S = 2.0
CLOSES_WITHIN_S = 2.0
GATES_MAX = 10_000  # what cannot be queued for long is not kept for ever


class Noted:
    """What was committed and is not told of yet: users who have spent, and decisions, by project."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.users: dict[str, set[str]] = {}
        self.gates: dict[str, list[GateRow]] = {}

    def add(self, project: str, users: Collection[str], gates: Sequence[GateRow] = ()) -> None:
        """Note it."""
        with self._lock:
            if users:
                self.users.setdefault(project, set()).update(users)
            kept = self.gates.setdefault(project, []) if gates else []
            kept.extend(gates[: GATES_MAX - len(kept)])

    def take(self) -> tuple[dict[str, set[str]], dict[str, list[GateRow]]]:
        """All of it."""
        with self._lock:
            taken = self.users, self.gates
            self.users, self.gates = {}, {}
        return taken

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left to tell."""
        return not (self.users or self.gates)


class Embedded:
    """Hears of what one ledger has committed, on the ledger's thread; never fails, and never waits."""

    def __init__(self) -> None:
        self._looks_again_s = 0.0
        self._is_heard = False

    def posted(self, ledger: DjangoLedger, users: Collection[str]) -> None:
        """Events of *users* are in the books."""
        _ledgers.add(ledger)
        if users and self._is_listening(ledger):
            _noted.add(ledger.project, users)
            start()

    def decided(self, ledger: DjangoLedger, gates: Sequence[GateRow]) -> None:
        """Decisions are in the audit trail."""
        if gates and self._is_listening(ledger):
            _noted.add(ledger.project, (), gates)
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
        if _ledgers or not worker.is_running():
            return
        worker.finish(CLOSES_WITHIN_S)
        if not _noted.is_empty:
            log.warning("webhooks: some of what happened last may not be told of")

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


def tell() -> None:
    """Queue what is worth telling of what was noted; what cannot be queued now is noted again."""
    users, gates = _noted.take()
    try:
        for name in [*users, *(name for name in gates if name not in users)]:
            project = services.project(name)
            noticing.queue_usage(project, users.get(name, ()))
            noticing.queue_gates(project, gates.get(name, ()))
    except Exception:
        for name in {*users, *gates}:
            _noted.add(name, users.get(name, ()), gates.get(name, ()))
        raise


def _forget() -> None:
    """In a child: what the parent has noted, it tells itself."""
    global _noted  # noqa: PLW0603  # one per process
    _noted = Noted()


_noted = Noted()
_ledgers: weakref.WeakSet[DjangoLedger] = weakref.WeakSet()
worker.each_turn(tell)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
