"""The few pages of the server besides the API and the admin."""

from __future__ import annotations

import hmac
import ipaddress
import os

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST

from paygent_django.server import environment
from paygent_django.server import metrics as counters


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
    # Behind a proxy everybody comes from the loopback: a forwarded request is not one from here.
    if request.headers.get("X-Forwarded-For") or request.headers.get("Forwarded"):
        return False
    try:
        return ipaddress.ip_address(request.META.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        return False
