"""
Nobody forks while a thread of this package is at the database, or at anything else that takes locks.

A child would have a copy of what the thread is at, and not the thread. On SQLite it believes in locks that it
does not hold, or waits for ever for one that is held; a module that Django loads with the first query never
ends loading, nor do the certificates of OpenSSL. So a fork waits until they pause, and closes the connections
that they keep.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Iterator
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import Error

from paygent_django.database import database_alias
from paygent_django.ledger import _connections  # its hook is called after ours: it holds a lock

_WAIT_S = 5.0
_FILE_WAIT_MS = 2000


class Doors:
    """Who is inside, and which connections to databases they have left open."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.is_shut = False
        self.inside: dict[int, int] = {}  # how deep, by thread
        self.left_open: weakref.WeakSet[BaseDatabaseWrapper] = weakref.WeakSet()
        self.is_empty = True  # at the last fork

    def enter(self) -> None:
        """Wait for the end of a fork, and go in."""
        me = threading.get_ident()
        with self.changed:
            self.changed.wait_for(lambda: not self.is_shut or me in self.inside)
            self.inside[me] = self.inside.get(me, 0) + 1

    def leave(self) -> None:
        """Go out, and tell which connections stay open."""
        me = threading.get_ident()
        with self.changed:
            self.left_open.update(connections.all(initialized_only=True))
            self.inside[me] -= 1
            if not self.inside[me]:
                del self.inside[me]
                self.changed.notify_all()

    def shut(self) -> None:
        """Let nobody else in, wait until nobody is inside, and close what they have left open."""
        self.changed.acquire()
        self.is_shut = True
        me = threading.get_ident()
        self.is_empty = self.changed.wait_for(lambda: self.inside.keys() <= {me}, _WAIT_S)
        for wrapper in tuple(self.left_open) if self.is_empty and not self.inside else ():
            _close(wrapper)

    def open(self) -> None:
        """In they go again."""
        self.is_shut = False
        self.changed.notify_all()
        self.changed.release()


_doors = Doors()
_is_cut_off = False


@contextlib.contextmanager
def held_off() -> Iterator[None]:
    """Forks wait for the end of the block, within bounds: wait for nothing there but the database."""
    doors = _doors
    doors.enter()
    try:
        _wait_for_less()
        yield
    finally:
        doors.leave()


def _wait_for_less() -> None:
    """Who forks may have written to the file, and not committed: wait for him less than he does for us."""
    connection = connections[database_alias()]
    if connection.vendor == "sqlite":
        with contextlib.suppress(Error):  # whoever needs it finds out
            connection.ensure_connection()
            connection.connection.execute(f"PRAGMA busy_timeout = {_FILE_WAIT_MS}")


def is_cut_off() -> bool:
    """Whether SQLite was in use, for longer than a fork waits, when this process was forked."""
    return _is_cut_off


def _close(wrapper: Any) -> None:
    """Close a connection that belongs to another thread, which opens a new one when it goes on."""
    if wrapper.connection is None or wrapper.in_atomic_block:
        return
    if wrapper.vendor == "sqlite" and wrapper.is_in_memory_db():
        return
    with contextlib.suppress(Exception):  # one that is lost already
        wrapper._close()
    wrapper.connection = None


def _before() -> None:
    _doors.shut()


def _in_parent() -> None:
    _doors.open()


def _in_child() -> None:
    global _doors, _is_cut_off  # noqa: PLW0603  # one of each per process
    if not _doors.is_empty and connections[database_alias()].vendor == "sqlite":
        _is_cut_off = True
        _connections.stay_closed()
    _doors = Doors()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
