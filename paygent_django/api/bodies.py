"""Reading requests and writing answers: JSON that is really JSON, within bounds."""

from __future__ import annotations

import json
import math
from http import HTTPStatus
from typing import Any, NoReturn

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from ninja.parser import Parser

from paygent_django.api.limits import BATCH_MAX, BODY_MAX
from paygent_django.api.problems import Problem


def read_json(request: HttpRequest) -> Any:
    """
    The JSON of the body.

    Raises:
        Problem: 413 for one that is too large; 422 for what is no JSON, which NaN and infinity are not.
    """
    try:
        return json.loads(_body(request), parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        reason = "is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"the body is no JSON: {reason}"[:300], "") from error


def read_batch(request: HttpRequest) -> list[Any]:
    """
    The JSON array of the body.

    Raises:
        Problem: As :func:`read_json`, and 413 for more than 5 000 items.
    """
    items = read_json(request)
    if not isinstance(items, list):
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "the body must be a JSON array", "")
    if len(items) > BATCH_MAX:
        raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a batch has at most {BATCH_MAX} items")
    return items


def answer(said: Any, status: int = HTTPStatus.OK) -> HttpResponse:
    """*said* as JSON."""
    body = json.dumps(said, separators=(",", ":"))
    response = HttpResponse(body, status=status, content_type="application/json")
    response["Cache-Control"] = "no-store"
    return response


def nothing() -> HttpResponse:
    """204."""
    return HttpResponse(status=HTTPStatus.NO_CONTENT)


class StrictParser(Parser):
    """The same for the endpoints whose bodies are read by their models."""

    def parse_body(self, request: HttpRequest) -> Any:
        """The JSON of the body; raises as :func:`read_json`."""
        return read_json(request)


def _body(request: HttpRequest) -> bytes:
    try:
        if int(request.META.get("CONTENT_LENGTH") or 0) > BODY_MAX:
            raise _too_large()
        body: bytes = _chunked(request) if _is_chunked(request) else request.body
    except RequestDataTooBig as error:
        raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too large") from error
    except UnreadablePostError as error:
        raise Problem(HTTPStatus.BAD_REQUEST, "the body broke off") from error
    return body


def _is_chunked(request: HttpRequest) -> bool:
    """Whether nobody said how long the body is, which Django takes for none at all under WSGI."""
    return "chunked" in request.headers.get("Transfer-Encoding", "").lower() and "wsgi.input" in request.META


def _chunked(request: HttpRequest) -> bytes:
    if not request.META.get("wsgi.input_terminated"):  # it would be waited for what comes after the body
        raise Problem(HTTPStatus.LENGTH_REQUIRED, "a body needs a Content-Length here")
    try:
        body: bytes = request.META["wsgi.input"].read(BODY_MAX + 1)
    except Exception as error:  # each server has errors of its own
        raise UnreadablePostError(*error.args) from error
    if len(body) > BODY_MAX:
        raise _too_large()
    return body


def _too_large() -> Problem:
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has at most {BODY_MAX} bytes")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("a number is too large")
    return value
