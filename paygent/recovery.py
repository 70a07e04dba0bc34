"""Taking over the journals of dead processes."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Generator
from pathlib import Path

from paygent._forking import no_fork
from paygent.journal import FORMAT, SUFFIX, UNBORN, Reader

try:
    import fcntl
except ImportError:  # see paygent.journal
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("paygent")

_UNBORN_S = 86_400.0


class Left:
    """
    A journal that a dead process left behind; nobody else can take it until it is closed.

    ``lease_id`` names the lease of its owner.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.reader = Reader(path)
        header = self.reader.header()
        self.format = header.get("format", FORMAT)
        self.lease_id = str(header.get("lease_id") or path.stem.partition("-")[0])
        self._fd = fd

    def __enter__(self) -> Left:
        return self

    def __exit__(self, *exc_info: object) -> None:
        _close(self._fd)

    def remove(self) -> None:
        """Remove the file, after its events are committed; one with unreadable lines is set aside instead."""
        if not self.reader.damaged:
            self.path.unlink(missing_ok=True)
            return
        aside = self.path.with_suffix(".damaged")
        self.path.rename(aside)
        log.error("%d line(s) of a journal cannot be read; it is kept as %s", self.reader.damaged, aside)


def dead_journals(folder: Path | None, own_lease_id: str) -> Generator[Left, None, None]:
    """
    The journals of dead processes, one by one.

    A file's lock is held while it is looked at, so that two processes never recover the same one at once.
    """
    if folder is None or fcntl is None or not folder.is_dir():
        return
    _sweep(folder)
    for path in sorted(folder.glob("*" + SUFFIX)):
        left = None if path.name.startswith(own_lease_id) else _take(path)
        if left is not None:
            with left:
                if left.format == FORMAT:  # else: a newer version of this package knows what to do
                    yield left


def _take(path: Path) -> Left | None:
    """Lock *path*, or ``None`` if its owner lives or it is gone."""
    try:
        with no_fork:  # a child would keep the journal locked, from everybody, for as long as it lives
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            _taken.add(fd)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_nlink:  # else another process recovered it between the listing and the lock
            return Left(path, fd)
    except OSError:
        pass
    _close(fd)
    return None


def _close(fd: int) -> None:
    with no_fork, contextlib.suppress(OSError):
        if fd in _taken:
            _taken.remove(fd)
            os.close(fd)


def _sweep(folder: Path) -> None:
    """Remove what processes left that died between creating a file and naming it; it holds no events."""
    for path in folder.glob("*" + UNBORN):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < time.time() - _UNBORN_S:
                path.unlink()


_taken: set[int] = set()  # the files that are being recovered now


def _after_fork_in_child() -> None:
    """The parent goes on with them; closing the copies does not free its locks."""
    for fd in tuple(_taken):
        _close(fd)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
