"""The thread that delivers what is due; any number of processes may run one."""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.db import close_old_connections, connections

from paygent_django.models import WebhookDelivery
from paygent_django.models.moments import now_us
from paygent_django.services._base import rows
from paygent_django.webhooks import sending
from paygent_django.webhooks.sending import Outcome

log = logging.getLogger("paygent")

ATTEMPTS_MAX = 16  # within fifteen to thirty hours
PAUSE_FIRST_S = 5.0
PAUSE_MAX_S = 6 * 3600.0
POLL_S = 1.0
IDLE_POLL_S = 4.0  # where nothing has been due for a while; whatever this process queues is sent at once
AT_ONCE = 4
# A try that has not ended by then has died with its process: the delivery is due again.
CLAIMED_S = 60
GONE = 410

_wake = threading.Event()
_stop = threading.Event()
_thread: threading.Thread | None = None
_owner = 0
_turns: list[Callable[[], None]] = []
_delivers = True
_is_ending = False  # the process ends: no more threads can be started


def each_turn(step: Callable[[], None]) -> None:
    """Have the thread do *step* before it looks for what is due."""
    _turns.append(step)


def start(*, delivers: bool = True) -> None:
    """Do the steps of each turn from now on, and deliver, on a thread of this process."""
    global _thread, _owner, _delivers, _is_ending  # noqa: PLW0603  # one thread per process
    if not is_running():
        _stop.clear()
        _delivers, _is_ending = delivers, False
        _owner = os.getpid()
        _thread = threading.Thread(target=_run, name="paygent-webhooks", daemon=True)
        _thread.start()


def is_running() -> bool:
    """Whether this process has the thread."""
    return _thread is not None and _owner == os.getpid() and _thread.is_alive()


def stop(timeout_s: float = 5.0) -> None:
    """End the thread; what it has not delivered is due later."""
    global _thread  # noqa: PLW0603  # one thread per process
    _stop.set()
    _wake.set()
    if _thread is not None and _owner == os.getpid():
        _thread.join(timeout_s)
    _thread = None


def finish(timeout_s: float) -> None:
    """End the thread once it has done what there is to do, or when the time is over."""
    global _is_ending  # noqa: PLW0603  # one thread per process
    _is_ending = True
    _wake.set()
    if _thread is not None and _owner == os.getpid():
        _thread.join(timeout_s)
    stop(0.0)


def poke() -> None:
    """Something may be due."""
    _wake.set()


def deliver_due(limit: int = 100, *, ended: Callable[[], bool] = bool) -> int:
    """Try what is due now, several at once, until it has *ended*; returns how many were tried."""
    due = list(_due()[:limit])
    if len(due) <= 1 or _is_ending:
        return sum(_take(delivery, ended) for delivery in due)
    with ThreadPoolExecutor(min(AT_ONCE, len(due)), "paygent-webhook") as pool:
        return sum(pool.map(lambda delivery: _take_apart(delivery, ended), due))


def pause_s(attempts: int) -> float:
    """How long to wait after so many tries: twice as long each time, with jitter."""
    longest: float = min(PAUSE_MAX_S, PAUSE_FIRST_S * 2 ** (attempts - 1))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311  # jitter


def _run() -> None:
    idle_s = POLL_S
    while not _stop.is_set():
        _wake.clear()
        is_last = _is_ending
        tried = _turn()
        if is_last:
            break
        idle_s = min(IDLE_POLL_S, 2 * idle_s) if tried == 0 else POLL_S
        if not tried:
            _wake.wait(idle_s if _delivers else None)
    connections.close_all()


def _turn() -> int | None:
    """How many were tried; ``None``: the database is away, say."""
    close_old_connections()
    try:
        for step in _turns:
            step()
        return deliver_due(5 * AT_ONCE, ended=_stop.is_set) if _delivers else 0
    except Exception:
        log.exception("webhooks: deliveries have to wait")
        return None


def count_due() -> int:
    """How many deliveries are due."""
    return int(_due().count())


def _due() -> Any:
    due = rows(WebhookDelivery).filter(next_attempt_us__lte=now_us(), endpoint__is_enabled=True)
    return due.select_related("endpoint").order_by("next_attempt_us")


def _claim(delivery: WebhookDelivery) -> bool:
    """Take a delivery, unless another process was faster."""
    until_us = now_us() + CLAIMED_S * 1_000_000
    claimed = rows(WebhookDelivery).filter(pk=delivery.pk, next_attempt_us=delivery.next_attempt_us)
    if not claimed.update(next_attempt_us=until_us, attempts=delivery.attempts + 1):
        return False
    delivery.attempts += 1
    return True


def _take_apart(delivery: WebhookDelivery, ended: Callable[[], bool]) -> bool:
    """On a thread of the pool, which ends with its connection."""
    try:
        return _take(delivery, ended)
    finally:
        connections.close_all()


def _take(delivery: WebhookDelivery, ended: Callable[[], bool]) -> bool:
    """Try, unless another process does or this one ends; whether it was tried."""
    if ended() or not _claim(delivery):
        return False
    _try(delivery)
    return True


def _try(delivery: WebhookDelivery) -> None:
    try:
        outcome = sending.send(delivery)
    except Exception as error:
        log.exception("webhooks: a delivery failed in an unforeseen way")
        outcome = Outcome(None, type(error).__name__)
    _note(delivery, outcome)


def _note(delivery: WebhookDelivery, outcome: Outcome) -> None:
    moment_us = now_us()
    is_over = outcome.delivered or outcome.status == GONE or delivery.attempts >= ATTEMPTS_MAX
    next_us = None if is_over else moment_us + int(pause_s(delivery.attempts) * 1_000_000)
    rows(WebhookDelivery).filter(pk=delivery.pk).update(
        next_attempt_us=next_us,
        delivered_us=moment_us if outcome.delivered else None,
        response_status=outcome.status,
        last_error=outcome.error,
    )
    if not outcome.delivered:
        log.warning("webhooks: delivery %s, try %d: %s", delivery.uuid, delivery.attempts, outcome.error)


def _forget() -> None:
    """A forked child has neither the thread nor what its parent's may have held while it was forked."""
    global _wake, _stop, _thread  # one of each per process
    _wake, _stop, _thread = threading.Event(), threading.Event(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
