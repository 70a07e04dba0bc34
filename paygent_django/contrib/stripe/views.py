"""``POST …/webhook``: where Stripe delivers its events."""

from __future__ import annotations

import json
import logging

from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from paygent_django.contrib.stripe import conf, handlers
from paygent_django.contrib.stripe.payloads import MalformedEventError, message
from paygent_django.database import database_alias

log = logging.getLogger("paygent")
TOLERANCE_S = 300  # Stripe's own: a recorded delivery cannot be played back later


# Each event is a transaction of its own, which writes before it reads. Within ATOMIC_REQUESTS it would have
# read first, and SQLite fails a write after that if anybody else has written in between.
@transaction.non_atomic_requests(using=database_alias())
@csrf_exempt
@require_POST
def webhook(request: HttpRequest) -> HttpResponse:
    """
    Take in one event.

    200 with what became of it, also where customer or price are unknown: Stripe would deliver it for days,
    and it is kept here. 400 for what Stripe has not signed or what is no event. 503 without a secret, and
    500 while the database is away: Stripe then delivers again.
    """
    if not conf.secrets():
        log.error("Stripe: PAYGENT['STRIPE_WEBHOOK_SECRET'] is not set; no event can be accepted")
        return HttpResponse("not configured", status=503, content_type="text/plain")
    try:
        body = request.body.decode("utf-8")
        if not _is_signed(body, request.headers.get("Stripe-Signature", "")):
            return _refused("the signature does not match")
        told = message(json.loads(body))
    except (UnicodeDecodeError, json.JSONDecodeError, MalformedEventError):
        return _refused("this is no event")
    return HttpResponse(handlers.take(told).outcome, content_type="text/plain")


def _is_signed(body: str, header: str) -> bool:
    """Whether one of our secrets made *header*, not long ago; Stripe's library compares in constant time."""
    from stripe import SignatureVerificationError, WebhookSignature

    if not header.isascii():
        return False
    for secret in conf.secrets():
        try:
            WebhookSignature.verify_header(body, header, secret, TOLERANCE_S)
        except SignatureVerificationError:
            continue
        return True
    return False


def _refused(why: str) -> HttpResponse:
    log.warning("Stripe: an event was refused: %s", why)
    return HttpResponse(why, status=400, content_type="text/plain")
