"""
Telling a Redis that lost its data from one that is new.

The first process to reach an empty Redis writes a mark, the *epoch*; all remember it, also in a file beside
the journals. Where the mark is gone or another one, the data is gone with it: whoever notices says so in
Redis itself, and from then on no process takes what is left there for "nothing used yet". Only a person ends
that, by restoring the data, or by writing an accepted mark.
"""

from __future__ import annotations

import contextlib
import logging
import uuid
from pathlib import Path
from typing import Any, Protocol

from paygent.ledger import LedgerError

log = logging.getLogger("paygent")

EPOCH_KEY = "paygent:epoch"
_FIRST, _ACCEPTED, _LOST = "first:", "accepted:", "lost:"


class Sender(Protocol):
    """The link to Redis."""

    name: str

    def raw(self, *commands: Any) -> list[Any]:
        """Send commands, and return their answers."""


class Epoch:
    """The mark that this process knows; ``file`` is where the processes of this machine remember it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: str | None = None
        self._has_said_so = False

    def begin(self, link: Sender) -> bool:
        """
        On a new connection: learn the mark, or set one where nobody ever did.

        Returns:
            Whether an epoch begins for this process, so that Redis may not know its plans.

        Raises:
            LedgerError: The data is lost.
        """
        known = self._known or self._remembered()
        if known is None:
            link.raw(("SET", EPOCH_KEY, f"{_FIRST}{uuid.uuid4().hex}", "NX"))
        (found,) = link.raw(("GET", EPOCH_KEY))
        self._known = known
        return self._take(link, _text(found))

    def check(self, link: Sender, found: bytes | None) -> None:
        """
        Compare the mark that was *found* with the known one.

        Raises:
            LedgerError: The data is lost.
        """
        mark = _text(found)
        if mark == self._known:
            return
        if not mark.startswith(_ACCEPTED):
            raise self._lost(link, mark)
        # A new connection begins with taking it over.
        raise LedgerError(f"{link.name}: its data was replaced; the next try goes on with it")

    def _take(self, link: Sender, mark: str) -> bool:
        if mark == self._known:
            return False
        if not mark.startswith(_ACCEPTED) and not (self._known is None and mark.startswith(_FIRST)):
            raise self._lost(link, mark)
        self._known = mark
        self._has_said_so = False
        self._remember(mark)
        return True

    def _lost(self, link: Sender, mark: str) -> LedgerError:
        """Tell everybody; returns what to raise."""
        if not mark.startswith(_LOST):
            link.raw(("SET", EPOCH_KEY, f"{_LOST}{self._known}"))
        return self._loss(link)

    def _loss(self, link: Sender) -> LedgerError:
        told = (
            f"{link.name}: Redis has lost its data (it was restarted without it, or emptied). What is left "
            "is not taken for usage. Restore it from its append-only file or a snapshot; or, to begin anew "
            "with nothing used and nobody's plan known, run: "
            f"redis-cli SET {EPOCH_KEY} {_ACCEPTED}$(date +%s)"
        )
        if not self._has_said_so:
            self._has_said_so = True
            log.error("%s", told)
        return LedgerError(told)

    def _remembered(self) -> str | None:
        try:
            return self._file.read_text(encoding="utf-8").strip() or None
        except (OSError, ValueError):
            return None

    def _remember(self, mark: str) -> None:
        with contextlib.suppress(OSError):  # a machine without a disk of its own remembers in its processes
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.write_text(mark, encoding="utf-8")


def _text(found: bytes | None) -> str:
    return found.decode("utf-8", "replace") if found is not None else ""
