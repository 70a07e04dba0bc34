"""
The journal: append-only files of one process, one checksummed line per event.

A line is written before the answer of its call is returned, so that what was answered survives the death
of the process (not of the machine: nothing waits for the disk). The owner holds ``flock`` on its files for
life; a file whose lock is free belongs to a dead process, whatever its name says. Any live process of the
same ledger then settles it (see ``paygent.recovery``), and removes it only after that commit; event ids make
a repeat harmless.

Lines are ``crc32 payload`` in ASCII. The first names the owner's lease, the others are events. A file that
has grown is followed by another one, and goes once everything in it is settled: under steady traffic there
is no moment at which *all* events are.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from paygent._forking import no_fork
from paygent.core.events import ID, Event, decode, encode
from paygent.ledgers.filesystems import network_filesystem

try:
    import fcntl
except ImportError:  # not a POSIX system: no process can tell there that another one is dead
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("paygent")

FORMAT = 1
SUFFIX = ".journal"
UNBORN = ".new"
EVENTS_PER_BATCH = 500
_SEGMENT_BYTES = 1 << 20
_CLOSE_S = 1.0
_crc32 = zlib.crc32


class _Segment:
    """One file: how long it is, and how many of its events the ledger does not have yet."""

    __slots__ = ("fd", "length", "path", "pending", "shed")

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd
        self.length = self.pending = self.shed = 0

    @property
    def settled(self) -> bool:
        return not self.pending and not self.shed


class Journal:
    """
    The files of this process; the first is opened with the first event.

    ``append`` never raises: an event that cannot be written lives in memory alone and is written as soon as
    that works again. ``folder`` of ``None`` keeps no journal at all.
    """

    def __init__(self, folder: Path | None, lease_id: str) -> None:
        self.folder = folder
        self._lease_id = lease_id
        self._lock = threading.Lock()
        self._segments: list[_Segment] = []
        self._current: _Segment | None = None
        self._opened = 0
        self._closed = False
        self._limit = _SEGMENT_BYTES
        self._where: dict[str, _Segment] = {}
        self._unwritten: dict[str, Event] = {}
        self.last_error: str | None = None
        if folder is not None:
            self._put = _held_write()

    # -- from any thread ------------------------------------------------------------------------------

    def append(self, event: Event) -> None:
        """Write one event; when this returns the kernel has it."""
        if self.folder is None:
            return
        line = _line(encode(event))
        with self._lock:
            try:
                self._write(event[ID], line)
                if self._unwritten:
                    self._catch_up()
            except OSError as error:
                if event.id not in self._where:
                    self._unwritten[event.id] = event
                self._failed(error)
            if self._closed:  # a call outlived its engine: whoever comes next recovers it
                self._let_go()

    def claim(self) -> None:
        """Have a file before the first grant: it names the lease of a process that dies in its first call."""
        if self.folder is None or self._current is not None:
            return
        with self._lock:
            try:
                if self._current is None:
                    self._open()
            except OSError as error:
                self._failed(error)

    @property
    def writable(self) -> bool:
        """Whether everything appended so far is in a file."""
        return self.folder is not None and not self._unwritten

    @property
    def shed_count(self) -> int:
        """How many events have left memory and are only in the files."""
        return sum(segment.shed for segment in tuple(self._segments))

    # -- on the ledger thread -------------------------------------------------------------------------

    def settled(self, events: Iterable[Event]) -> None:
        """Note that *events* are safe in the ledger; a file of which all are is no longer needed."""
        with self._lock:
            for event in events:
                segment = self._where.pop(event.id, None)
                if segment is not None:
                    segment.pending -= 1
                elif self._unwritten:
                    self._unwritten.pop(event.id, None)
            self._tidy()

    def shed(self, events: Iterable[Event]) -> int:
        """Take over events that leave memory; returns how many of them are in no file, hence lost."""
        lost = 0
        with self._lock:
            for event in events:
                segment = self._where.pop(event.id, None)
                self._unwritten.pop(event.id, None)
                if segment is None:
                    lost += 1
                else:
                    segment.pending -= 1
                    segment.shed += 1
        return lost

    def settle_shed(self, post: Callable[[Sequence[Event]], object]) -> None:
        """Give *post* the files that hold events no longer in memory, in batches; then let go of them."""
        for segment in tuple(self._segments):
            count = segment.shed
            if count:
                for batch in batches(Reader(segment.path).events()):
                    post(batch)
                with self._lock:
                    segment.shed -= count
                    self._tidy()

    def set_aside(self, event: Event, reason: str) -> None:
        """Keep an event that no ledger can take where a person finds it."""
        log.error("event %s of user %r cannot be stored (%s)", event.id, event.user_id, reason)
        if self.folder is not None:
            with contextlib.suppress(OSError), (self.folder / "rejected.lines").open("ab") as file:
                file.write(_line(encode(event)))

    def rest(self) -> None:
        """Leave no file behind that holds nothing unsettled; the next event begins another one."""
        with self._lock:
            for segment in tuple(self._segments):
                if segment.settled:
                    if segment is self._current:
                        self._current = None
                    self._remove(segment)

    def close(self, *, remove: bool) -> None:
        """
        Close; *remove* the files of which everything is settled, and leave the others for recovery.

        The handler of a signal may have come into the middle of ``append`` in this very thread, which goes on
        after it: the files are then left to the end of the process.
        """
        if not self._lock.acquire(timeout=_CLOSE_S):
            return
        try:
            for segment in self._segments:
                if remove and segment.settled:
                    segment.path.unlink(missing_ok=True)
            self._closed = True
            self._let_go()
        finally:
            self._lock.release()

    def _let_go(self) -> None:
        with no_fork:  # a child would close numbers that are others' by then
            for segment in self._segments:
                os.close(segment.fd)
            self._segments = []
            self._current = None

    def forget_after_fork(self) -> None:
        """In a forked child: let go of the parent's files; closing the copies does not free its locks."""
        for segment in self._segments:
            with contextlib.suppress(OSError):
                os.close(segment.fd)
        self._segments = []
        self._current = None

    # -- the files (the lock is held) -----------------------------------------------------------------

    def _write(self, event_id: str, line: bytes) -> None:
        segment = self._current
        if segment is None or segment.length >= self._limit:
            segment = self._open()
        length = len(line)
        written = self._put(segment.fd, line, length)
        # A fault is met again, and raised with its reason; an interrupted write is made again.
        if written != length and (written >= 0 or os.write(segment.fd, line) != length):
            self._cut(segment)
        segment.length += length
        if event_id not in self._where:
            self._where[event_id] = segment
            segment.pending += 1

    def _cut(self, segment: _Segment) -> None:
        """
        Take half a line off again, which would swallow the one after it.

        Raises:
            OSError: Always: the disk is full.
        """
        try:
            os.ftruncate(segment.fd, segment.length)
        except OSError:
            self._current = None  # it stays to be read, and a new file is begun
        raise OSError(errno.ENOSPC, "the disk is full")

    def _open(self) -> _Segment:
        assert self.folder is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        kind = network_filesystem(self.folder)
        if kind is not None:
            raise OSError(errno.ENOTSUP, f"a journal cannot be kept on a network file system ({kind})")
        name = self._lease_id if not self._opened else f"{self._lease_id}-{self._opened}"
        self._opened += 1
        path, header = self.folder / (name + SUFFIX), _header(self._lease_id)
        with no_fork:  # a child would keep the file locked that it does not know of, for as long as it lives
            segment = self._current = _Segment(path, _new_file(path, header))
            self._segments.append(segment)
        segment.length = len(header)
        # Older files stay while they hold something unsettled; longer ones after them keep them few.
        self._limit = max(_SEGMENT_BYTES, sum(older.length for older in self._segments))
        return segment

    def _catch_up(self) -> None:
        """Write what could not be written before."""
        for event_id, event in tuple(self._unwritten.items()):
            self._write(event_id, _line(encode(event)))
            del self._unwritten[event_id]
        log.info("the journal in %s can be written again", self.folder)

    def _tidy(self) -> None:
        for segment in tuple(self._segments):
            if segment.settled:
                if segment is not self._current:
                    self._remove(segment)
                elif segment.length > _SEGMENT_BYTES:
                    self._restart(segment)

    def _remove(self, segment: _Segment) -> None:
        with no_fork:
            self._segments.remove(segment)
            with contextlib.suppress(OSError):
                segment.path.unlink(missing_ok=True)
            os.close(segment.fd)

    def _restart(self, segment: _Segment) -> None:
        self._limit = _SEGMENT_BYTES
        try:
            os.ftruncate(segment.fd, 0)
            segment.length = 0
            header = _header(self._lease_id)
            if os.write(segment.fd, header) != len(header):
                self._cut(segment)
            segment.length = len(header)
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        if str(error) != self.last_error:
            log.error("the journal in %s cannot be written: %s; events wait in memory", self.folder, error)
        self.last_error = str(error)


def _new_file(path: Path, header: bytes) -> int:
    """
    Create *path*, locked and with its header; no other process ever sees it without either.

    A free lock means that the owner is dead, so a file must not be there before it is locked.
    """
    unborn = path.with_suffix(UNBORN)
    fd = os.open(unborn, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        if fcntl is not None:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.write(fd, header) != len(header):
            raise OSError(errno.ENOSPC, "the disk is full")
        unborn.rename(path)
    except OSError:
        os.close(fd)
        with contextlib.suppress(OSError):
            unborn.unlink()
        raise
    return fd


@lru_cache(maxsize=1)
def _held_write() -> Callable[[int, bytes, int], int]:
    """
    ``write`` of the C library under the interpreter's lock; where it cannot be had, one that fails.

    Handing a line to the kernel takes a microsecond or two; ``os.write`` lets go of the lock meanwhile, the
    ledger thread runs a step first, and the caller waits ten times as long for it.
    """
    try:
        with no_fork:
            import ctypes  # a tenth of `import paygent`

        write: Any = ctypes.PyDLL(None).write  # without its errno, which would cost 0.8 µs a call
        write.argtypes, write.restype = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t), ctypes.c_ssize_t
    except (ImportError, OSError, TypeError, AttributeError):
        return lambda _fd, _data, _length: -1
    return write  # type: ignore[no-any-return]  # ctypes tells its types at run time


def _line(payload: str) -> bytes:
    data = payload.encode("ascii")
    return b"%08x %s\n" % (_crc32(data), data)


def _header(lease_id: str) -> bytes:
    return _line(json.dumps({"lease_id": lease_id, "format": FORMAT}))


def batches(events: Iterable[Event]) -> Iterator[list[Event]]:
    """*events* in lists of at most what one transaction should hold."""
    iterator = iter(events)
    while batch := list(islice(iterator, EVENTS_PER_BATCH)):
        yield batch


class Reader:
    """
    The events of one file, read as they are needed.

    After reading, ``damaged`` counts the lines that should be events and are not. A torn last line is none of
    them: its writer died in it, before the answer of its call was returned.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.damaged = 0

    def header(self) -> dict[str, object]:
        """What the owner wrote first; empty where it died while starting the file anew."""
        with self._path.open("rb") as file:
            payload = _payload(file.readline())
        try:
            header = json.loads(payload or "null")
        except ValueError:
            header = None
        return header if isinstance(header, dict) else {}

    def events(self) -> Iterator[Event]:
        """The intact events, in the order in which they were written."""
        with self._path.open("rb") as file:
            for line in file:
                payload = _payload(line)
                if payload is None:
                    self.damaged += line.endswith(b"\n")
                elif not payload.startswith("{"):
                    try:
                        yield decode(payload)
                    except ValueError:
                        self.damaged += 1


def _payload(line: bytes) -> str | None:
    crc, _, payload = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or b"%08x" % _crc32(payload) != crc:
        return None
    return payload.decode("ascii")
