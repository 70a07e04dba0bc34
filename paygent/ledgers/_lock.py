"""A lock file on which the processes of one machine queue in order, without polling."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import TracebackType

from paygent._turns import short_turns

try:
    import fcntl
except ImportError:  # not a POSIX system: SQLite's own lock must do
    fcntl = None  # type: ignore[assignment]


class FileLock:
    """
    ``with lock:`` holds an exclusive ``flock``. The kernel frees it when its process dies.

    SQLite waits for a locked file by sleeping and trying again, so that under load one process can be
    passed over for long; on ``flock`` all are served in turn. Whoever has it is not kept waiting for the
    interpreter: see :class:`paygent._turns.ShortTurns`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def __enter__(self) -> None:
        short_turns.begin()
        try:
            self._acquire()
        except BaseException:
            short_turns.end()
            raise

    def _acquire(self) -> None:
        if fcntl is None:
            return
        if self._fd is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def pulse(self) -> int:
        """When a block last came through, in nanoseconds: who waits sees by it that the queue moves."""
        fd = self._fd
        try:
            return 0 if fd is None else os.fstat(fd).st_mtime_ns
        except OSError:  # closed in this moment
            return 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if fcntl is not None and self._fd is not None:
                if kind is None:  # not of whoever found the store locked by another program
                    with contextlib.suppress(OSError):  # it only tells the others that the queue moves
                        os.utime(self._fd)
                fcntl.flock(self._fd, fcntl.LOCK_UN)
        finally:
            short_turns.end()

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
