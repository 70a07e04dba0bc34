"""``/leases``: what processes hold, so that one cap is shared over machines."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from django.http import HttpRequest, HttpResponse

from paygent.ledger import LeaseRequest
from paygent.wire.fields import WireError
from paygent.wire.leases import reply_as_json, request_from_json
from paygent_django import webhooks
from paygent_django.api import schemas
from paygent_django.api._documented import batch_of
from paygent_django.api.auth import administers, ingests, ledger_of, may, project_of
from paygent_django.api.bodies import answer, nothing, read_batch
from paygent_django.api.problems import Problem
from paygent_django.api.routing import Router
from paygent_django.api.windows import placed

router = Router(tags=["leases"])


@router.post("", auth=ingests, response=list[dict[str, Any]], openapi_extra=batch_of(schemas.LeaseIn))
def apply_leases(request: HttpRequest) -> HttpResponse:
    """Apply operations of several users in one transaction; the replies are in their order."""
    said = read_batch(request)
    operations = [_operation(request, item, index) for index, item in enumerate(said)]
    if not operations:
        return answer([])
    replies = ledger_of(request).lease(operations)
    if any(operation.events for operation in operations):
        webhooks.notice(project_of(request))
    return answer(
        [reply_as_json(reply, item.get("plan_version")) for reply, item in zip(replies, said, strict=True)]
    )


@router.delete("/{lease_id}", auth=ingests, response={204: None})
def drop_lease(request: HttpRequest, lease_id: str) -> HttpResponse:
    """Drop everything that one process holds."""
    ledger_of(request).settle((), [lease_id])
    return nothing()


def _operation(request: HttpRequest, said: object, index: int) -> LeaseRequest:
    try:
        operation = request_from_json(said)
    except WireError as error:
        path = f"{index}.{error.field}".rstrip(".")
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, error.detail, path) from error
    if not may(request, administers):  # a plan is assigned by whoever may administer users
        operation.plan = None
    operation.events = placed(project_of(request), operation.events) if operation.events else []
    return operation
