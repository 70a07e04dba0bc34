"""``/events``: usage is taken in and read back."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse

from paygent.wire.events import event_as_json, posted_event_from_json
from paygent.wire.fields import each
from paygent_django import services, webhooks
from paygent_django.api import schemas
from paygent_django.api._documented import batch_of
from paygent_django.api.auth import ingests, ledger_of, project_of, reads
from paygent_django.api.bodies import answer, read_batch
from paygent_django.api.paging import LongLimit, page
from paygent_django.api.routing import Router
from paygent_django.api.together import together
from paygent_django.api.windows import placed
from paygent_django.database import database_alias
from paygent_django.models import UsageEvent
from paygent_django.services._base import rows

router = Router(tags=["events"])


@router.post("/batch", auth=ingests, response=schemas.BatchOut, openapi_extra=batch_of(schemas.EventIn))
def post_events(request: HttpRequest) -> HttpResponse:
    """Take in usage events. Each id counts once; what cannot be right is told, and the rest is taken."""
    read, rejected = each(read_batch(request), posted_event_from_json)
    if not read:
        return answer({"accepted": 0, "duplicates": 0, "rejected": rejected})
    project = project_of(request)
    posted = together(database_alias(), project.pk).post(ledger_of(request), placed(project, read))
    detail = "differs from what this id was first posted with"
    rejected += [{"id": event_id, "field": field, "detail": detail} for event_id, field in posted.conflicts]
    webhooks.notice(project)
    counts = {"accepted": posted.accepted, "duplicates": posted.duplicates}
    request.paygent_counts = {**counts, "rejected": len(rejected)}  # for whoever keeps metrics
    return answer({**counts, "rejected": rejected})


@router.get("", auth=reads, response=schemas.EventsOut)
def list_events(
    request: HttpRequest,
    user_id: str | None = None,
    limit: LongLimit = 100,
    cursor: str | None = None,
) -> HttpResponse:
    """The newest events, of all users or of one."""
    chosen = rows(UsageEvent).filter(project=project_of(request)).select_related("user")
    if user_id is not None:
        user = services.find_user(project_of(request), user_id)
        chosen = chosen.filter(user=user) if user is not None else chosen.none()
    found, next_cursor = page(chosen, ("-timestamp_us", "-pk"), limit, cursor)
    events = [event_as_json(services.to_core(row)) for row in found]
    return answer({"events": events, "next_cursor": next_cursor})
