"""The thread that delivers what is due; any number of processes may run one."""

from __future__ import annotations

import logging
import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor

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
AT_ONCE = 4
# A try that has not ended by then has died with its process: the delivery is due again.
CLAIMED_S = 60
GONE = 410

_wake = threading.Event()
_stop = threading.Event()
_thread: threading.Thread | None = None
_owner = 0


def start() -> None:
    """Deliver from now on, on a thread of this process."""
    global _thread, _owner  # noqa: PLW0603  # one thread per process
    if _thread is None or _owner != os.getpid() or not _thread.is_alive():
        _stop.clear()
        _owner = os.getpid()
        _thread = threading.Thread(target=_run, name="paygent-webhooks", daemon=True)
        _thread.start()


def stop(timeout_s: float = 5.0) -> None:
    """End the thread; what it has not delivered is due later."""
    global _thread  # noqa: PLW0603  # one thread per process
    _stop.set()
    _wake.set()
    if _thread is not None and _owner == os.getpid():
        _thread.join(timeout_s)
    _thread = None


def poke() -> None:
    """Something may be due."""
    _wake.set()


def deliver_due(limit: int = 100) -> int:
    """Try what is due now, several at once; returns how many were tried."""
    claimed = [delivery for delivery in _due(limit) if _claim(delivery)]
    if len(claimed) <= 1:
        for delivery in claimed:
            _try(delivery)
        return len(claimed)
    with ThreadPoolExecutor(min(AT_ONCE, len(claimed)), "paygent-webhook") as pool:
        list(pool.map(_try_apart, claimed))
    return len(claimed)


def pause_s(attempts: int) -> float:
    """How long to wait after so many tries: twice as long each time, with jitter."""
    longest: float = min(PAUSE_MAX_S, PAUSE_FIRST_S * 2 ** (attempts - 1))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311  # jitter


def _run() -> None:
    while not _stop.is_set():
        _wake.clear()
        try:
            close_old_connections()
            tried = deliver_due(limit=5 * AT_ONCE)
        except Exception:
            log.exception("webhooks: deliveries have to wait")
            tried = 0
        if not tried:
            _wake.wait(POLL_S)
    connections.close_all()


def _due(limit: int) -> list[WebhookDelivery]:
    due = rows(WebhookDelivery).filter(next_attempt_us__lte=now_us(), endpoint__is_enabled=True)
    return list(due.select_related("endpoint").order_by("next_attempt_us")[:limit])


def _claim(delivery: WebhookDelivery) -> bool:
    """Take a delivery, unless another process was faster."""
    until_us = now_us() + CLAIMED_S * 1_000_000
    claimed = rows(WebhookDelivery).filter(pk=delivery.pk, next_attempt_us=delivery.next_attempt_us)
    if not claimed.update(next_attempt_us=until_us, attempts=delivery.attempts + 1):
        return False
    delivery.attempts += 1
    return True


def _try_apart(delivery: WebhookDelivery) -> None:
    """On a thread of the pool, which ends with its connection."""
    try:
        _try(delivery)
    finally:
        connections.close_all()


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
