"""The thread that delivers what is due; any number of processes may run one."""

from __future__ import annotations

import atexit
import logging
import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.db import close_old_connections, connections
from django.db.models import F, Window
from django.db.models.functions import RowNumber

from paygent_django.models import WebhookDelivery, WebhookEndpoint
from paygent_django.models.moments import now_us
from paygent_django.services._base import rows
from paygent_django.webhooks import forks, sending
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
# A try that fails after so long holds up the others: its address is left alone for a while.
HANGS_S = 4.0
HANG_PAUSE_FIRST_S = 30.0
HANG_PAUSE_MAX_S = 3600.0
AGAIN_S = 0.2  # what fails at the end of the process is tried again, as long as it may take
TURN_S = 5.0  # nothing new is begun in a turn that lasts longer

_wake = threading.Event()
_stop = threading.Event()
_thread: threading.Thread | None = None
_owner = 0
_turns: list[Callable[[], bool]] = []
_delivers = True
_is_ending = False  # the process ends: no more threads can be started
_has_ended = False  # the interpreter shuts down: the database may be gone
_jitter = random.Random()  # noqa: S311  # not the one of the app, which may have seeded it, or may watch it


def each_turn(step: Callable[[], bool]) -> None:
    """Have the thread do *step*, as often as it says that there is more, before it looks for what is due."""
    _turns.append(step)


def start(*, delivers: bool = True) -> None:
    """Do the steps of each turn from now on, and deliver, on a thread of this process."""
    global _thread, _owner, _delivers, _is_ending  # noqa: PLW0603  # one thread per process
    if forks.is_cut_off():
        log.debug("webhooks: the file was in use when this process was forked; other processes deliver")
    elif not is_running():
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
    """
    Try what is due now, several at once, until it has *ended*; returns how many were tried.

    Addresses come in turn, one delivery of each before the second of any. One that lets us wait in vain is
    passed over from then on.
    """
    with forks.held_off():
        due = list(_in_turn()[:limit])
    hanging: set[int] = set()
    if len(due) <= 1 or _is_ending:
        return sum(_take(delivery, ended, hanging) for delivery in due)
    with ThreadPoolExecutor(min(AT_ONCE, len(due)), "paygent-webhook") as pool:
        return sum(pool.map(lambda delivery: _take_apart(delivery, ended, hanging), due))


def pause_s(attempts: int) -> float:
    """How long to wait after so many tries: twice as long each time, with jitter."""
    longest: float = min(PAUSE_MAX_S, PAUSE_FIRST_S * 2 ** (attempts - 1))
    return longest * _jitter.uniform(0.5, 1.0)


def _run() -> None:
    idle_s = POLL_S
    while not _stop.is_set():
        _wake.clear()
        is_last = _is_ending
        tried = _turn()
        if is_last and tried is not None:
            break
        idle_s = min(IDLE_POLL_S, 2 * idle_s) if tried == 0 else POLL_S
        if not tried:
            _wake.wait(AGAIN_S if is_last else idle_s if _delivers else None)
    _disconnect()


def _disconnect() -> None:
    with forks.held_off():
        connections.close_all()


def _turn() -> int | None:
    """How many were tried; ``None``: the database is away, say."""
    with forks.held_off():
        close_old_connections()
    try:
        for step in _turns:
            while _stepped(step):
                pass
        ends_s = time.monotonic() + TURN_S

        def ended() -> bool:
            return _stop.is_set() or (time.monotonic() > ends_s and not _is_ending)

        return deliver_due(5 * AT_ONCE, ended=ended) if _delivers else 0
    except Exception:
        if _has_ended:
            log.debug("webhooks: deliveries are left to other processes", exc_info=True)
            _stop.set()
        else:
            log.exception("webhooks: deliveries have to wait")
        return None


def _stepped(step: Callable[[], bool]) -> bool:
    with forks.held_off():
        return step()


def count_due() -> int:
    """How many deliveries are due."""
    return int(_due().count())


def _due() -> Any:
    moment_us = now_us()
    return rows(WebhookDelivery).filter(
        next_attempt_us__lte=moment_us, endpoint__is_enabled=True, endpoint__paused_until_us__lte=moment_us
    )


def _in_turn() -> Any:
    """The oldest of each address, then the second oldest of each, and so on."""
    place = Window(RowNumber(), partition_by=F("endpoint_id"), order_by=[F("next_attempt_us"), F("pk")])
    due = _due().annotate(place=place).select_related("endpoint")
    return due.order_by("place", "next_attempt_us", "pk")


def _claim(delivery: WebhookDelivery) -> bool:
    """Take a delivery, unless another process was faster."""
    until_us = now_us() + CLAIMED_S * 1_000_000
    with forks.held_off():
        claimed = rows(WebhookDelivery).filter(pk=delivery.pk, next_attempt_us=delivery.next_attempt_us)
        if not claimed.update(next_attempt_us=until_us, attempts=delivery.attempts + 1):
            return False
    delivery.attempts += 1
    return True


def _take_apart(delivery: WebhookDelivery, ended: Callable[[], bool], hanging: set[int]) -> bool:
    """On a thread of the pool, which ends with its connection."""
    try:
        return _take(delivery, ended, hanging)
    finally:
        _disconnect()


def _take(delivery: WebhookDelivery, ended: Callable[[], bool], hanging: set[int]) -> bool:
    """Try, unless another process does, this one ends or the address hangs; whether it was tried."""
    if ended() or delivery.endpoint_id in hanging or not _claim(delivery):
        return False
    if _try(delivery):
        hanging.add(delivery.endpoint_id)
    return True


def _pause(endpoint: WebhookEndpoint) -> None:
    """Leave an address alone, twice as long each time."""
    longest_s = min(HANG_PAUSE_MAX_S, HANG_PAUSE_FIRST_S * 2 ** min(endpoint.timeouts, 16))
    until_us = now_us() + int(longest_s * _jitter.uniform(0.5, 1.0) * 1_000_000)
    timeouts = min(endpoint.timeouts + 1, 100)  # of several at once, one is counted
    rows(WebhookEndpoint).filter(pk=endpoint.pk).update(timeouts=timeouts, paused_until_us=until_us)
    log.warning("webhooks: %s lets us wait, and is left alone for a while", endpoint.uuid)


def _try(delivery: WebhookDelivery) -> bool:
    """Send it, and note how that went; whether its address let us wait in vain."""
    since_s = time.monotonic()
    try:
        outcome = sending.send(delivery)
    except Exception as error:
        log.exception("webhooks: a delivery failed in an unforeseen way")
        outcome = Outcome(None, type(error).__name__)
    hangs = outcome.status is None and time.monotonic() - since_s >= HANGS_S
    with forks.held_off():
        _note(delivery, outcome)
        if hangs:
            _pause(delivery.endpoint)
        elif delivery.endpoint.timeouts:
            rows(WebhookEndpoint).filter(pk=delivery.endpoint_id).update(timeouts=0, paused_until_us=0)
    return hangs


@atexit.register
def _end() -> None:
    """What fails from now on is no news: whoever owns the database may have removed it."""
    global _has_ended  # noqa: PLW0603  # one per process
    _has_ended = True


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
