"""The audit trail: decisions of the gate other than *ok*."""

from __future__ import annotations

from typing import Any, Literal

from django.http import HttpRequest, HttpResponse

from paygent.wire.events import gate_as_json, gate_from_json
from paygent.wire.fields import each, moment_us
from paygent_django import webhooks
from paygent_django.api import schemas
from paygent_django.api._documented import batch_of
from paygent_django.api.auth import ingests, ledger_of, project_of, reads, user_of
from paygent_django.api.bodies import answer, read_batch
from paygent_django.api.paging import Limit, page
from paygent_django.api.routing import Router
from paygent_django.models import GateEvent, Project
from paygent_django.services._base import rows
from paygent_django.services.values import gate_to_core

router = Router(tags=["audit trail"])
of_users = Router(tags=["audit trail"])
_IDS_PER_QUERY = 500


@router.post("/batch", auth=ingests, response=schemas.BatchOut, openapi_extra=batch_of(schemas.GateIn))
def post_gates(request: HttpRequest) -> HttpResponse:
    """Append decisions to the audit trail; each id once."""
    read, rejected = each(read_batch(request), gate_from_json)
    project = project_of(request)
    distinct = {row.id: row for row in read}
    known = _known(project, list(distinct))
    if distinct:
        ledger_of(request).record_gates(list(distinct.values()))
        webhooks.notice(project)
    accepted = len(distinct) - len(known)
    return answer({"accepted": accepted, "duplicates": len(read) - accepted, "rejected": rejected})


@router.get("", auth=reads, response=schemas.GatesOut)
def list_gates(request: HttpRequest, limit: Limit = 100, cursor: str | None = None) -> HttpResponse:
    """The newest decisions of all users."""
    chosen = rows(GateEvent).filter(project=project_of(request)).select_related("user")
    found, next_cursor = page(chosen, ("-timestamp_us", "-pk"), limit, cursor)
    return answer({"events": [as_json(row) for row in found], "next_cursor": next_cursor})


@of_users.get("/{user_id}/gate-events", auth=reads, response=schemas.GatesOut)
def list_gates_of_user(
    request: HttpRequest,
    user_id: str,
    blocked_only: bool = False,
    status: Literal["soft_gate", "hard_gate"] | None = None,
    gate_reason: str | None = None,
    since: str | None = None,
    until: str | None = None,
    limit: Limit = 100,
    cursor: str | None = None,
) -> HttpResponse:
    """The newest decisions of one user."""
    chosen = rows(GateEvent).filter(user=user_of(request, user_id)).select_related("user")
    if blocked_only:
        chosen = chosen.filter(blocked=True)
    if status is not None:
        chosen = chosen.filter(status=status)
    if gate_reason is not None:
        chosen = chosen.filter(gate_reason=gate_reason)
    if since is not None:
        chosen = chosen.filter(timestamp_us__gte=moment_us({"since": since}, "since"))
    if until is not None:
        chosen = chosen.filter(timestamp_us__lt=moment_us({"until": until}, "until"))
    found, next_cursor = page(chosen, ("-timestamp_us", "-pk"), limit, cursor)
    return answer({"user_id": user_id, "events": [as_json(row) for row in found], "next_cursor": next_cursor})


def as_json(row: GateEvent) -> dict[str, Any]:
    """A decision as the API says it."""
    said = gate_as_json(gate_to_core(row))
    said["paygent_user_id"] = str(row.user.uuid)
    return said


def _known(project: Project, ids: list[str]) -> set[str]:
    known: set[str] = set()
    for start in range(0, len(ids), _IDS_PER_QUERY):
        chosen = rows(GateEvent).filter(project=project, gate_id__in=ids[start : start + _IDS_PER_QUERY])
        known.update(chosen.values_list("gate_id", flat=True))
    return known
