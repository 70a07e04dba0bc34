"""What the provider remembers between requests: background responses, files, batches, runs."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

T = TypeVar("T")
KEPT_MAX = 1000


class Shelf(Generic[T]):
    """The last ``KEPT_MAX`` things of one kind by id; a thing may need some polls before it is ready."""

    def __init__(self) -> None:
        self._things: OrderedDict[str, tuple[T, int]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, key: str, thing: T, polls: int = 0) -> None:
        """Keep *thing*; the first *polls* looks at it find it unfinished."""
        with self._lock:
            self._things[key] = thing, polls
            if len(self._things) > KEPT_MAX:
                self._things.popitem(last=False)

    def get(self, key: str) -> T | None:
        """Return a thing without counting this as a poll."""
        with self._lock:
            return self._things.get(key, (None, 0))[0]

    def poll(self, key: str) -> tuple[T | None, bool]:
        """Return a thing and whether it is ready."""
        with self._lock:
            if key not in self._things:
                return None, False
            thing, polls = self._things[key]
            self._things[key] = thing, max(0, polls - 1)
            return thing, polls == 0

    def all(self) -> list[T]:
        """Return all things, oldest first."""
        with self._lock:
            return [thing for thing, _ in self._things.values()]


@dataclass(slots=True)
class StoredFile:
    """A file of the files API: its description and its content."""

    info: dict[str, Any]
    content: bytes


@dataclass(slots=True)
class Store:
    """Everything remembered; ``polls`` is how often background work is looked at before it is done."""

    polls: int = 0
    responses: Shelf[dict[str, Any]] = field(default_factory=Shelf)
    files: Shelf[StoredFile] = field(default_factory=Shelf)
    batches: Shelf[dict[str, Any]] = field(default_factory=Shelf)
    runs: Shelf[dict[str, Any]] = field(default_factory=Shelf)
    message_batches: Shelf[tuple[dict[str, Any], bytes]] = field(default_factory=Shelf)
