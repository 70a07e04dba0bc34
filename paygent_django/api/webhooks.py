"""``/webhooks``: where a project wants to hear of what happened."""

from __future__ import annotations

import uuid
from http import HTTPStatus
from typing import Any

from django.http import HttpRequest, HttpResponse

from paygent_django import webhooks
from paygent_django.api import schemas
from paygent_django.api.auth import administers, project_of
from paygent_django.api.bodies import answer, nothing
from paygent_django.api.paging import Limit, page
from paygent_django.api.problems import Problem
from paygent_django.api.routing import Router
from paygent_django.api.values import iso
from paygent_django.models import WebhookDelivery, WebhookEndpoint
from paygent_django.services._base import rows

router = Router(tags=["webhooks"])


@router.post("", auth=administers, response={201: schemas.WebhookOut})
def create_webhook(request: HttpRequest, payload: schemas.WebhookIn) -> HttpResponse:
    """Add an address; the secret that signs its deliveries is in this answer and nowhere else."""
    made = webhooks.create_endpoint(project_of(request), **payload.model_dump())
    return answer({**as_json(made), "secret": made.secret}, HTTPStatus.CREATED)


@router.get("", auth=administers, response=schemas.WebhooksOut)
def list_webhooks(request: HttpRequest) -> HttpResponse:
    """All addresses."""
    found = rows(WebhookEndpoint).filter(project=project_of(request)).order_by("pk")
    return answer({"webhooks": [as_json(endpoint) for endpoint in found]})


@router.get("/{webhook_id}", auth=administers, response=schemas.WebhookOut)
def get_webhook(request: HttpRequest, webhook_id: str) -> HttpResponse:
    """One address."""
    return answer(as_json(_endpoint(request, webhook_id)))


@router.patch("/{webhook_id}", auth=administers, response=schemas.WebhookOut)
def change_webhook(request: HttpRequest, webhook_id: str, payload: schemas.WebhookPatch) -> HttpResponse:
    """Change what is given."""
    changes = {name: value for name, value in payload.model_dump().items() if value is not None}
    return answer(as_json(webhooks.change_endpoint(_endpoint(request, webhook_id), **changes)))


@router.delete("/{webhook_id}", auth=administers, response={204: None})
def delete_webhook(request: HttpRequest, webhook_id: str) -> HttpResponse:
    """Remove an address, and what it was told."""
    _endpoint(request, webhook_id).delete()
    return nothing()


@router.post("/{webhook_id}/test", auth=administers, response={202: schemas.DeliveryOut})
def send_test(request: HttpRequest, webhook_id: str) -> HttpResponse:
    """Send a delivery that means nothing."""
    made = webhooks.send_test(_endpoint(request, webhook_id))
    return answer(_delivery(made), HTTPStatus.ACCEPTED)


@router.get("/{webhook_id}/deliveries", auth=administers, response=schemas.DeliveriesOut)
def list_deliveries(
    request: HttpRequest,
    webhook_id: str,
    limit: Limit = 100,
    cursor: str | None = None,
) -> HttpResponse:
    """What an address was told, newest first."""
    chosen = rows(WebhookDelivery).filter(endpoint=_endpoint(request, webhook_id))
    found, next_cursor = page(chosen, ("-pk",), limit, cursor)
    return answer({"deliveries": [_delivery(row) for row in found], "next_cursor": next_cursor})


def as_json(endpoint: WebhookEndpoint) -> dict[str, Any]:
    """An address without its secret."""
    return {
        "id": str(endpoint.uuid),
        "url": endpoint.url,
        "events": endpoint.events,
        "description": endpoint.description,
        "is_enabled": endpoint.is_enabled,
        "created_at": iso(endpoint.created_us),
    }


def _delivery(row: WebhookDelivery) -> dict[str, Any]:
    return {
        "id": str(row.uuid),
        "event": row.event,
        "attempts": row.attempts,
        "created_at": iso(row.created_us),
        "delivered_at": iso(row.delivered_us),
        "next_attempt_at": iso(row.next_attempt_us),
        "response_status": row.response_status,
        "last_error": row.last_error,
    }


def _endpoint(request: HttpRequest, webhook_id: str) -> WebhookEndpoint:
    try:
        wanted = uuid.UUID(webhook_id)
    except ValueError:
        wanted = None
    found: WebhookEndpoint | None = (
        rows(WebhookEndpoint).filter(project=project_of(request), uuid=wanted).first()
    )
    if found is None:
        raise Problem(HTTPStatus.NOT_FOUND, "there is no such webhook", "webhook_id")
    return found
