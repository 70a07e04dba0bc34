"""The addresses of a project: added, changed, tried out."""

from __future__ import annotations

from typing import Any

from paygent_django.models import Project, WebhookDelivery, WebhookEndpoint
from paygent_django.services import ServiceError
from paygent_django.services._base import rows
from paygent_django.webhooks import embedded, noticing
from paygent_django.webhooks.guard import TargetError, check_url

THRESHOLDS = noticing.THRESHOLDS
EVENTS = ("soft_gate", "hard_gate", "blocked", *(f"threshold_{share}" for share in THRESHOLDS))
TEST = "test"


def create_endpoint(
    project: Project,
    url: str,
    *,
    events: list[str] | None = None,
    description: str = "",
    is_enabled: bool = True,
) -> WebhookEndpoint:
    """
    Add an address; its ``secret`` is on the row.

    Raises:
        ServiceError: The address is none, or leads to a private network; or an event is unknown.
    """
    fields = {"url": url, "events": events or [], "description": description}
    _check(fields)
    made: WebhookEndpoint = rows(WebhookEndpoint).create(project=project, is_enabled=is_enabled, **fields)
    noticing.forget(project.pk)
    return made


def change_endpoint(endpoint: WebhookEndpoint, **changes: Any) -> WebhookEndpoint:
    """
    Change ``url``, ``events``, ``description`` or ``is_enabled``.

    Raises:
        ServiceError: As :func:`create_endpoint`.
    """
    _check(changes)
    for name, value in changes.items():
        setattr(endpoint, name, value)
    if changes:
        endpoint.paused_until_us = endpoint.timeouts = 0
        endpoint.save(update_fields=[*changes, "paused_until_us", "timeouts"])
    noticing.forget(endpoint.project_id)
    return endpoint


def send_test(endpoint: WebhookEndpoint) -> WebhookDelivery:
    """Queue a delivery that means nothing; how it went is on its row soon."""
    made: WebhookDelivery = rows(WebhookDelivery).create(
        endpoint=endpoint, event=TEST, body={"message": "This is a test of Paygent's webhooks."}
    )
    rows(WebhookEndpoint).filter(pk=endpoint.pk).update(paused_until_us=0)  # whoever asks may have mended it
    embedded.start()
    return made


def _check(fields: dict[str, Any]) -> None:
    if "url" in fields:
        try:
            check_url(fields["url"])
        except TargetError as error:
            raise ServiceError("url", str(error)) from error
    for index, event in enumerate(fields.get("events", ())):
        if event not in EVENTS:
            raise ServiceError(f"events.{index}", f"must be one of {', '.join(EVENTS)}")
    description = fields.get("description", "")
    if "\0" in description or not description.isprintable():
        raise ServiceError("description", "must be one line of text")
