"""The few pages of the server besides the API and the admin."""

from __future__ import annotations

import hmac
import ipaddress
import os
from urllib.parse import urlsplit

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST

from paygent_django.server import environment
from paygent_django.server import metrics as counters

_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Via")


@require_safe
def home(request: HttpRequest) -> HttpResponse:  # noqa: ARG001  # Django's signature
    """To the admin: that is what a person with a browser wants."""
    return HttpResponseRedirect("/admin/")


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """The counters, for the loopback or for who knows ``PAYGENT_METRICS_KEY``."""
    if not _may_read(request):
        return HttpResponse("metrics are for the loopback, or need PAYGENT_METRICS_KEY\n", status=403)
    return HttpResponse(counters.exposition(), content_type=CONTENT_TYPE_LATEST)


def _may_read(request: HttpRequest) -> bool:
    key = os.environ.get(environment.METRICS_KEY, "")
    if key:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        return hmac.compare_digest(given.encode(), key.encode())
    # Behind a proxy everybody comes from the loopback: what was forwarded, or asks for another name than that
    # of this machine, is not from here. A proxy that is told nothing else puts the name of its upstream.
    if any(request.headers.get(name) for name in _FORWARDED):
        return False
    return _is_loopback(request.META.get("REMOTE_ADDR", "")) and _is_loopback(_asked_host(request))


def _asked_host(request: HttpRequest) -> str:
    try:
        return urlsplit(f"//{request.headers.get('Host', '')}").hostname or ""
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
