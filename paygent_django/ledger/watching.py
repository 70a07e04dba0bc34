"""What an embedded app's ledger says of its work, and to whom."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Protocol

from paygent.ledger import GateRow

if TYPE_CHECKING:
    from paygent_django.ledger.store import DjangoLedger


class Watcher(Protocol):
    """Hears what a ledger has committed, on the ledger's thread: must be quick."""

    def posted(self, ledger: DjangoLedger, users: Collection[str]) -> None:
        """An operation is over; events of *users* are in the books."""

    def decided(self, ledger: DjangoLedger, gates: Sequence[GateRow]) -> None:
        """Decisions are in the audit trail."""

    def made(self, ledger: DjangoLedger, users: Collection[str]) -> None:
        """Rows of *users* were made."""

    def closed(self, ledger: DjangoLedger) -> None:
        """Nothing more will come."""


_makers: list[Callable[[], Watcher]] = []


def watch_with(make: Callable[[], Watcher]) -> None:
    """Have *make* give each ledger of an embedded app that is opened from now on its watcher."""
    _makers[:] = [make]


def new_watcher() -> Watcher | None:
    """A watcher, if anybody watches."""
    return _makers[0]() if _makers else None
