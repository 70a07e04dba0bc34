"""Saying things once: a log that repeats itself is not read."""

from __future__ import annotations


class Once:
    """
    Remembers what was said, within a bound: what is said may hold names that users choose.

    Past the bound nothing new is said. Without a lock: two threads at the same moment may say it twice.
    """

    __slots__ = ("_said", "_said_max")

    def __init__(self, said_max: int = 1000) -> None:
        self._said: set[str] = set()
        self._said_max = said_max

    def is_new(self, what: str) -> bool:
        """Return whether *what* is to be said now; from then on it is not new any more."""
        if what in self._said or len(self._said) >= self._said_max:
            return False
        self._said.add(what)
        return True

    def forget(self) -> None:
        """Say everything again, as in a process that has just begun."""
        self._said.clear()
