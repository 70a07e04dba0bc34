"""The stores, chosen by URL."""

from __future__ import annotations

from pathlib import Path

from paygent.ledger import Ledger


def open_ledger(url: str) -> Ledger:
    """
    Make the ledger that *url* names: ``memory://`` or ``sqlite:///path/to/file.db``.

    Nothing is opened yet, so that a ledger that is away is found out where it is handled.

    Raises:
        ValueError: The scheme is unknown.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "memory":
        from paygent.ledgers.memory import MemoryLedger  # only what is used is loaded

        return MemoryLedger()
    if scheme == "sqlite":
        from paygent.ledgers.sqlite import SqliteLedger

        if not rest.startswith("/") or len(rest) < 2:
            raise ValueError(f"ledger={url!r}: a SQLite ledger is written sqlite:///path/to/file.db")
        return SqliteLedger(sqlite_path(rest))
    raise ValueError(f"ledger={url!r}: unknown scheme {scheme!r}; known are memory:// and sqlite:///")


def sqlite_path(rest: str) -> Path:
    """The file of ``sqlite:///relative``, ``sqlite:////absolute`` or ``sqlite:///~/home``."""
    return Path(rest[1:]).expanduser()
