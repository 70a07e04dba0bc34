"""
Signals of what the engine decides, for receivers of the project.

``limit_reached`` and ``soft_gate`` carry ``result`` (:class:`~paygent.GuardResult`), ``usage_recorded``
carries ``event`` (:class:`~paygent.UsageEvent`), ``session_started`` carries ``state``
(:class:`~paygent.UserState`); all carry ``user_id``, which is ``None`` where the decision does not say.

All are sent robustly: a receiver that fails is logged and changes nothing. They are sent by the thread that
decided, before the answer goes on. Where that is an event loop's, one thread beside it sends them, in order:
receivers may use the database, and do not stop the loop. What nobody receives costs nothing.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.db import close_old_connections
from django.dispatch import Signal

from paygent.client import Paygent
from paygent.context import current_payer

Callback = Callable[[Any], Any]


class EngineSignal(Signal):
    """
    A signal that takes the engine's callback from its first receiver on.

    Args:
        register: Registers a callback with a Paygent.
        argument: What receivers are given the callback's value as.
    """

    def __init__(self, register: Callable[[Paygent, Callback], None], argument: str) -> None:
        super().__init__()
        self._register = register
        self._argument = argument
        self._watched: Callable[[], Paygent | None] = lambda: None

    def connect(self, *args: Any, **kwargs: Any) -> None:
        """Connect a receiver; see :meth:`django.dispatch.Signal.connect`."""
        super().connect(*args, **kwargs)
        self.watch(Paygent.get_instance())

    def watch(self, pg: Paygent | None) -> None:
        """Hear of what *pg* decides, if anybody wants to know and it is another than before."""
        if self.receivers and pg is not None and self._watched() is not pg:
            self._watched = weakref.ref(pg)
            self._register(pg, self._tell)

    def _tell(self, value: Any) -> None:
        named = {self._argument: value, "user_id": _user_id(value)}
        send = functools.partial(self.send_robust, Paygent, **named)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            send()
        else:
            _beside().submit(contextvars.copy_context().run, _sent, send)


limit_reached = EngineSignal(Paygent.on_hard_gate, "result")
soft_gate = EngineSignal(Paygent.on_soft_gate, "result")
usage_recorded = EngineSignal(Paygent.on_usage, "event")
session_started = EngineSignal(Paygent.on_session_start, "state")

_ALL = (limit_reached, soft_gate, usage_recorded, session_started)
_last: Callable[[], Paygent | None] = lambda: None  # noqa: E731  # takes turns with weak references


def watch() -> None:
    """Follow the process's Paygent: the project may have made a new one since the last request."""
    global _last  # noqa: PLW0603  # one Paygent per process
    pg = Paygent.get_instance()
    if pg is not None and _last() is not pg:
        _last = weakref.ref(pg)
        for signal in _ALL:
            signal.watch(pg)


@functools.cache
def _beside() -> ThreadPoolExecutor:
    """The thread that sends for event loops; one per process, from the first need on."""
    return ThreadPoolExecutor(1, thread_name_prefix="paygent-signals")


def _sent(send: Callable[[], Any]) -> None:
    """Send, with the connections of this thread kept as those of a request are."""
    close_old_connections()
    try:
        send()
    finally:
        close_old_connections()


os.register_at_fork(after_in_child=_beside.cache_clear)


def _user_id(value: Any) -> str | None:
    """Whom *value* is about; a decision of the gate is about whoever pays where it is made."""
    named: str | None = getattr(value, "user_id", None)
    payer = current_payer()
    return named if named is not None or payer is None else payer.user_id
