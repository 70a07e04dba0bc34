"""One log line and one count per request."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from paygent_django.server import metrics

log = logging.getLogger("paygent.server")
_QUIET = ("/api/v1/health", "/metrics")


class RequestMiddleware:
    """Says what was asked, how it ended and how long it took; never who asked with which key."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer, count and log."""
        began_s = time.perf_counter()
        response = self._get_response(request)
        if request.method == "HEAD" and not response.streaming:
            response.content = b""  # the headers speak of what a GET would bring
        took_s = time.perf_counter() - began_s
        metrics.observe(request, response.status_code, took_s)
        if request.path not in _QUIET:
            level = logging.ERROR if response.status_code >= 500 else logging.INFO
            said = {
                "method": request.method,
                "path": request.path[:300],
                "status": response.status_code,
                "ms": round(took_s * 1000, 1),
            }
            log.log(level, "request", extra={"said": said})
        return response
