"""Errors as RFC 9457 problems: ``application/problem+json`` with the path of the failing field."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from django.db import DatabaseError, DataError
from django.http import Http404, HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, ValidationError

from paygent.ledger import LedgerError
from paygent.wire.fields import WireError
from paygent_django.services import ServiceError

log = logging.getLogger("paygent")

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER_S = 1
_STATUSES = {"exists": HTTPStatus.CONFLICT}
_ERRORS_MAX = 20


class Problem(Exception):  # noqa: N818  # the word of RFC 9457
    """An answer other than success. ``field`` is the path of what is wrong in the request."""

    def __init__(self, status: int, detail: str, field: str | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.field = field


def respond(
    status: int, detail: str, field: str | None = None, errors: Sequence[dict[str, str]] = ()
) -> HttpResponse:
    """The response of one problem; *errors* are all fields that are wrong, where there are several."""
    said: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": int(status),
        "detail": detail,
    }
    if field is not None:
        said["field"] = field
    if errors:
        said["errors"] = list(errors)[:_ERRORS_MAX]
    response = HttpResponse(json.dumps(said), status=status, content_type=CONTENT_TYPE)
    response["Cache-Control"] = "no-store"
    if status == HTTPStatus.UNAUTHORIZED:
        response["WWW-Authenticate"] = 'Bearer realm="paygent"'
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        response["Retry-After"] = str(RETRY_AFTER_S)
    return response


def of(error: Exception) -> HttpResponse:
    """The response that says what went wrong; a fault of ours is logged and says nothing."""
    if isinstance(error, Problem):
        return respond(error.status, error.detail, error.field)
    if isinstance(error, ServiceError):
        status = _STATUSES.get(error.code, HTTPStatus.UNPROCESSABLE_ENTITY)
        return respond(status, error.message, error.field.removeprefix("config."))
    if isinstance(error, WireError):
        return respond(HTTPStatus.UNPROCESSABLE_ENTITY, error.detail, error.field)
    if isinstance(error, ValidationError):
        return _of_fields(error.errors)
    if isinstance(error, AuthenticationError):
        return respond(HTTPStatus.UNAUTHORIZED, "the API key is missing, unknown or revoked")
    if isinstance(error, Http404):
        return respond(HTTPStatus.NOT_FOUND, "there is nothing at this address")
    if isinstance(error, HttpError):
        # What the parser says of a body, ninja wraps.
        if isinstance(error.__cause__, Problem):
            return of(error.__cause__)
        return respond(error.status_code, str(error))
    if isinstance(error, DataError):
        return respond(HTTPStatus.UNPROCESSABLE_ENTITY, "a value is too large to be stored")
    if isinstance(error, (LedgerError, DatabaseError)):
        log.error("the database cannot be asked: %s: %s", type(error).__name__, error)
        return respond(HTTPStatus.SERVICE_UNAVAILABLE, "the database cannot be asked at the moment")
    log.error("a request failed", exc_info=error)
    return respond(HTTPStatus.INTERNAL_SERVER_ERROR, "an error of the server; its log says more")


def install(api: NinjaAPI) -> None:
    """Have *api* answer every error with a problem."""

    def handle(_request: HttpRequest, error: Any) -> HttpResponse:
        return of(error)

    for kind in (Exception, HttpError, ValidationError, AuthenticationError):
        api.add_exception_handler(kind, handle)


def _of_fields(found: Sequence[dict[str, Any]]) -> HttpResponse:
    errors = [{"field": _path(error["loc"]), "detail": str(error["msg"])} for error in found]
    first = errors[0]
    return respond(HTTPStatus.UNPROCESSABLE_ENTITY, first["detail"], first["field"], errors)


def _path(location: Sequence[Any]) -> str:
    """``("body", "payload", "plans", 0, "name")`` is ``plans.0.name`` to the caller."""
    skipped = 2 if location and location[0] == "body" else 1
    return ".".join(map(str, location[skipped:]))
