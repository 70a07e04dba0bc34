"""What a backend last said of each user, kept on disk for the time when it cannot be asked."""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger("paygent")

_TABLE = (
    "CREATE TABLE IF NOT EXISTS snapshots "
    "(project TEXT NOT NULL, user_id TEXT NOT NULL, reply TEXT NOT NULL, PRIMARY KEY (project, user_id)) "
    "WITHOUT ROWID"
)
_SAVE = "INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?)"
_READ = "SELECT reply FROM snapshots WHERE project = ? AND user_id = ?"
_WAIT_S = 0.2


class Snapshots:
    """
    A table beside the local ledger's; *project* keeps the users of different keys apart.

    Each use opens the file anew, so that any thread may ask. A file that cannot be used costs the snapshots
    and nothing else.
    """

    def __init__(self, path: Path, project: str) -> None:
        self._path = path
        self._project = project

    def save(self, replies: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep the newest answer about each of these users."""
        rows = [(self._project, user_id, json.dumps(reply)) for user_id, reply in replies.items()]
        with self._guarded("kept"):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._file() as file:
                file.execute(_TABLE)
                file.executemany(_SAVE, rows)

    def read(self, user_id: str) -> dict[str, Any] | None:
        """Return the last answer about a user, or ``None`` if there never was one."""
        with self._guarded("read"):
            if self._path.exists():
                with self._file() as file:
                    file.execute(_TABLE)
                    for (reply,) in file.execute(_READ, (self._project, user_id)):
                        known: dict[str, Any] = json.loads(reply)
                        return known
        return None

    @contextlib.contextmanager
    def _file(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self._path, timeout=_WAIT_S)
        try:
            with connection:
                yield connection
        finally:
            connection.close()

    @contextlib.contextmanager
    def _guarded(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error, ValueError) as error:
            log.warning("the last known state of users cannot be %s in %s: %s", verb, self._path, error)
