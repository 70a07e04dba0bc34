"""
The journal: one append-only file per process, one checksummed line per event.

A line is written before the answer of its call is returned, so that what was answered survives the death
of the process (not of the machine: nothing waits for the disk). The owner holds ``flock`` on its file for
life; a file whose lock is free belongs to a dead process, whatever its name says. Any live process of the
same ledger then settles it, and removes it only after that commit; event ids make a repeat harmless.

Lines are ``crc32 payload`` in ASCII. The first names the owner's lease, the others are events.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from paygent.core.events import Event, decode, encode

try:
    import fcntl
except ImportError:  # not a POSIX system: files of dead processes are then found by their age alone
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("paygent")

_TRIM_BYTES = 1 << 20
_SUFFIX = ".journal"
_crc32 = zlib.crc32


class Recovered(NamedTuple):
    """What a dead process left behind."""

    path: Path
    fd: int
    lease_id: str | None
    events: list[Event]


class Journal:
    """
    The file of this process; opened with the first event.

    ``append`` never raises: where the file cannot be written it counts the event in ``lost`` and says so
    once, and the event lives in memory alone.
    """

    def __init__(self, folder: Path | None, lease_id: str) -> None:
        self._folder = folder
        self._lease_id = lease_id
        self._fd: int | None = None
        self._lock = threading.Lock()
        self._path: Path | None = None
        self._bytes = 0
        self._pending = 0
        self.lost = 0
        self.last_error: str | None = None

    def append(self, event: Event) -> None:
        """Write one event; when this returns the kernel has it."""
        if self._folder is None:
            return
        payload = encode(event).encode("ascii")
        line = b"%08x %s\n" % (_crc32(payload), payload)
        with self._lock:
            self._pending += 1
            try:
                fd = self._fd if self._fd is not None else self._open()
                written = os.write(fd, line)
                self._bytes += written
                if written != len(line):
                    raise OSError("the disk is full")  # noqa: TRY301  # one place handles both
            except OSError as error:
                self._failed(error)

    def settled(self, count: int) -> None:
        """Note that *count* events are safe in the ledger; once all are, the file starts anew."""
        with self._lock:
            self._pending -= count
            if self._pending <= 0 and self._bytes > _TRIM_BYTES and self._fd is not None:
                self._trim()

    @property
    def writable(self) -> bool:
        """Whether everything appended so far is in the file."""
        return self._folder is not None and self.last_error is None

    def read_back(self) -> list[Event]:
        """Every event of this process's own file: what left memory is still there."""
        with self._lock:
            path = self._path
        return [] if path is None else list(_events(_lines(path)))

    def close(self, *, remove: bool) -> None:
        """Close; *remove* the file when everything in it is settled, else leave it for recovery."""
        with self._lock:
            if self._fd is None or self._path is None:
                return
            if remove and self._pending <= 0:
                self._path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = self._path = None

    def forget_after_fork(self) -> None:
        """In a forked child: let go of the parent's file; closing the copy does not free the parent's lock."""
        if self._fd is not None:
            os.close(self._fd)
        self._fd = self._path = None

    def _open(self) -> int:
        assert self._folder is not None
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{self._lease_id}{_SUFFIX}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        if fcntl is not None:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._fd, self._path = fd, path
        self._bytes = os.write(fd, _header(self._lease_id))
        return fd

    def _trim(self) -> None:
        assert self._fd is not None
        try:
            os.ftruncate(self._fd, 0)
            self._bytes = os.write(self._fd, _header(self._lease_id))
            self._pending = 0
        except OSError as error:
            self._failed(error, events=0)

    def _failed(self, error: OSError, events: int = 1) -> None:
        self.lost += events
        if self.last_error is None:
            log.error("the journal in %s cannot be written: %s; events wait in memory", self._folder, error)
        self.last_error = str(error)


def _header(lease_id: str) -> bytes:
    payload = json.dumps({"lease_id": lease_id}).encode("ascii")
    return b"%08x %s\n" % (_crc32(payload), payload)


def recover(folder: Path | None, own_lease_id: str) -> Iterator[Recovered]:
    """
    Take over the files of dead processes, one by one; give each to :func:`discard` or :func:`release`.

    The lock is held meanwhile, so that two processes never recover the same file at once.
    """
    if folder is None or fcntl is None or not folder.is_dir():
        return
    for path in sorted(folder.glob("*" + _SUFFIX)):
        if path.stem == own_lease_id:
            continue
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            continue
        if os.fstat(fd).st_nlink == 0:  # another process recovered it between the listing and the lock
            os.close(fd)
            continue
        lines = list(_lines(path))
        yield Recovered(path, fd, _owner(lines) or path.stem, list(_events(lines)))


def discard(recovered: Recovered) -> None:
    """Remove a recovered file, after its events are committed."""
    recovered.path.unlink(missing_ok=True)
    os.close(recovered.fd)


def release(recovered: Recovered) -> None:
    """Leave a recovered file for another try."""
    os.close(recovered.fd)


def _lines(path: Path) -> Iterator[str]:
    """The intact payloads; a torn or damaged line is passed over and said once per file."""
    damaged = 0
    with path.open("rb") as file:
        for line in file:
            crc, _, payload = line.rstrip(b"\n").partition(b" ")
            if line.endswith(b"\n") and b"%08x" % _crc32(payload) == crc:
                yield payload.decode("ascii")
            else:
                damaged += 1
    if damaged:
        log.warning("%s: %d torn line(s) passed over", path, damaged)


def _owner(lines: list[str]) -> str | None:
    for line in lines:
        if line.startswith("{"):
            lease_id = json.loads(line).get("lease_id")
            return lease_id if isinstance(lease_id, str) else None
    return None


def _events(lines: Iterator[str] | list[str]) -> Iterator[Event]:
    for line in lines:
        if line.startswith("["):
            try:
                yield decode(line)
            except ValueError as error:
                log.warning("a journal line is not an event: %s", error)
