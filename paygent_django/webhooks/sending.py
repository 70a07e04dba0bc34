"""One delivery over HTTP."""

from __future__ import annotations

import encodings.idna  # noqa: F401  # else getaddrinfo loads it, on a thread, while somebody may fork
import functools
import json
import os
import ssl
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import httpcore

from paygent.core.windows import from_us
from paygent.wire.signing import HEADER, sign
from paygent_django.models import WebhookDelivery
from paygent_django.webhooks import forks
from paygent_django.webhooks.guard import GuardedBackend, TargetError, check_url

CONNECT_S = 5.0
ANSWER_S = 10.0
IN_ALL_S = 20.0
_ERROR_LENGTH_MAX = 300


class Outcome(NamedTuple):
    """How a try went: ``status`` of the answer if there was one, and what was wrong (empty: nothing)."""

    status: int | None
    error: str

    @property
    def delivered(self) -> bool:
        """Whether the receiver has it."""
        return not self.error


def send(delivery: WebhookDelivery) -> Outcome:
    """Try once. Redirects are not followed; what the receiver says besides its status is not read."""
    endpoint = delivery.endpoint
    body = json.dumps(message(delivery), separators=(",", ":")).encode()
    headers: dict[bytes | str, bytes | str] = {
        "Content-Type": "application/json",
        "User-Agent": "Paygent-Webhooks/1",
        "Paygent-Event": delivery.event,
        "Paygent-Delivery": str(delivery.uuid),
        HEADER: sign(endpoint.secret, body, int(time.time())),
    }
    try:
        check_url(endpoint.url)
        return _answer(_post(endpoint.url, headers, body))
    except TargetError as error:
        return Outcome(None, str(error)[:_ERROR_LENGTH_MAX])
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
        return Outcome(None, f"{type(error).__name__}: {error}"[:_ERROR_LENGTH_MAX])


def message(delivery: WebhookDelivery) -> dict[str, Any]:
    """What is sent; ``id`` is the same in every try."""
    return {
        "id": str(delivery.uuid),
        "type": delivery.event,
        "created_at": from_us(delivery.created_us).isoformat(),
        "data": delivery.body,
    }


def _post(url: str, headers: Mapping[bytes | str, bytes | str], body: bytes) -> int:
    timeouts = {"connect": CONNECT_S, "read": ANSWER_S, "write": ANSWER_S, "pool": CONNECT_S}
    with (
        httpcore.ConnectionPool(
            ssl_context=_tls() if url[:6].lower() == "https:" else None,
            max_connections=1,
            network_backend=GuardedBackend(IN_ALL_S),
        ) as pool,
        pool.stream("POST", url, headers=headers, content=body, extensions={"timeout": timeouts}) as response,
    ):
        return response.status


def _tls() -> ssl.SSLContext:
    with forks.held_off():
        return _context()


@functools.cache
def _context() -> ssl.SSLContext:
    """One for all deliveries: it takes long to load what certificates are trusted."""
    return ssl.create_default_context()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_context.cache_clear)


def _answer(status: int) -> Outcome:
    if 200 <= status < 300:
        return Outcome(status, "")
    if 300 <= status < 400:
        return Outcome(status, "a redirect: they are not followed")
    return Outcome(status, f"the receiver answered {status}")
