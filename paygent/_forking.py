"""What no fork may come into the middle of, and locks that a forked child does not inherit."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable
from typing import NamedTuple

# Held over a fork, and over what a child could not go on with if it were forked in the middle: a late import
# (the thread that was at it is not there, so that it would never end), a list that the hooks of a fork go
# through. It is the one lock of this kind: two would be taken in one order here and in the other there.
no_fork = threading.RLock()
_is_resolver_known = False


def know_the_resolver() -> None:
    """
    Have the C library read how it resolves names, before the first connection to a host.

    It reads its settings with the first name that a process looks up, under a lock that glibc does not renew
    in a forked child: one that is forked in that moment would wait for ever with its own first name.
    """
    global _is_resolver_known  # noqa: PLW0603  # once per process, which its children inherit
    if _is_resolver_known:
        return
    with no_fork:
        import encodings.idna  # noqa: F401  # else getaddrinfo does, and nobody keeps forks away
        import socket  # whoever opens connections has it

        with contextlib.suppress(OSError):
            socket.getaddrinfo("localhost", None)
        _is_resolver_known = True


class ProcessLock:
    """A lock that is free in a forked child, whichever of the parent's threads held it: it is not there."""

    __slots__ = ("__weakref__", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        with no_fork:
            _process_locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def renew(self) -> None:
        """Forget who held it."""
        self._lock = threading.Lock()


_process_locks: weakref.WeakSet[ProcessLock] = weakref.WeakSet()


class _Stop(NamedTuple):
    before: Callable[[], None]
    in_parent: Callable[[], None]
    in_child: Callable[[], None]


_stops: list[_Stop] = []
_stopped: list[_Stop] = []  # by the fork under way


def stop_at_forks(
    before: Callable[[], None], in_parent: Callable[[], None], in_child: Callable[[], None]
) -> None:
    """
    Have *before* run before each fork, within ``no_fork``, and then one of the others, without fail.

    The system calls what is registered with it during a fork, as by a module that another thread is loading,
    after that fork alone.
    """
    with no_fork:
        _stops.append(_Stop(before, in_parent, in_child))


def _before_fork() -> None:
    no_fork.acquire()
    for stop in _stops:
        _stopped.append(stop)
        stop.before()


def _after_fork_in_parent() -> None:
    while _stopped:
        _stopped.pop().in_parent()
    no_fork.release()


def _after_fork_in_child() -> None:
    for lock in tuple(_process_locks):
        lock.renew()
    while _stopped:
        _stopped.pop().in_child()
    no_fork.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
    )
