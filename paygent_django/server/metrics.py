"""Counters of the server for Prometheus, added up over its worker processes."""

from __future__ import annotations

import os

from django.http import HttpRequest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client import multiprocess as shared

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_NAMES = frozenset(
    {
        "batch", "config", "deliveries", "docs", "events", "gate-events", "health", "leases", "openapi.json",
        "plans", "session", "subscription", "test", "totals", "usage", "users", "webhooks",
    }
)  # fmt: skip
_PLACES = frozenset({"admin", "static", "metrics"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

REQUESTS = Counter("paygent_http_requests", "Requests answered", ["route", "method", "status"])
SECONDS = Histogram("paygent_http_request_seconds", "Time to answer", ["route"], buckets=_BUCKETS)
EVENTS = Counter("paygent_events", "Usage events by what became of them", ["outcome"])


def observe(request: HttpRequest, status: int, took_s: float) -> None:
    """Count one answered request."""
    route = route_of(request.path)
    method = request.method if request.method in _METHODS else "{unknown}"
    REQUESTS.labels(route, method, str(status)).inc()
    SECONDS.labels(route).observe(took_s)
    for outcome, count in getattr(request, "paygent_counts", {}).items():
        EVENTS.labels(outcome).inc(count)


def route_of(path: str) -> str:
    """The address without what callers chose of it: names of users would be a label each, for good."""
    if not path.startswith("/api/v1/"):
        place = path[1:].partition("/")[0]
        return f"/{place}" if place in _PLACES else "/"
    first, *others = path[len("/api/v1/") :].rstrip("/").split("/")
    parts = [first] if first in _NAMES else ["{unknown}"]
    if others:
        last = others[-1] if others[-1] in _NAMES else None
        has_id = first in ("users", "webhooks", "leases") or len(others) > 1
        parts += (["{id}"] if has_id else []) + ([last] if last else [])
    return "/api/v1/" + "/".join(parts)


def exposition() -> bytes:
    """All counters, as Prometheus reads them."""
    if os.environ.get(SHARED_FOLDER):
        registry = CollectorRegistry()
        shared.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # it ships no types for this
        return generate_latest(registry)
    return generate_latest()
