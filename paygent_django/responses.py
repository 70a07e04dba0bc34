"""Answers of the web plugins' heart as Django's responses."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse

from paygent.web.limit_response import LimitResponse


def as_response(answer: LimitResponse, request: HttpRequest) -> HttpResponse:
    """Return *answer* as a response to *request*; a HEAD request is told of the body, and gets none."""
    body = b"" if request.method == "HEAD" else answer.body
    return HttpResponse(body, status=answer.status, headers=dict(answer.headers))


def lower_headers(request: HttpRequest) -> dict[str, str]:
    """The headers of *request*, names in lower case."""
    return {name.lower(): value for name, value in request.headers.items()}
