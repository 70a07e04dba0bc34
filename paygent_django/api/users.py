"""``/users``: registered, listed, subscribed, removed."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from django.http import HttpRequest, HttpResponse

from paygent_django import services
from paygent_django.api import schemas
from paygent_django.api.auth import administers, project_of, reads, user_of
from paygent_django.api.bodies import answer, nothing
from paygent_django.api.paging import Limit, page
from paygent_django.api.plans import plan_of
from paygent_django.api.problems import Problem
from paygent_django.api.routing import Router
from paygent_django.api.values import iso
from paygent_django.models import EndUser, Subscription
from paygent_django.services import ServiceError
from paygent_django.services._base import rows

router = Router(tags=["users"])


@router.post("", auth=administers, response={201: schemas.UserOut})
def create_user(request: HttpRequest, payload: schemas.UserIn) -> HttpResponse:
    """Register a user; 409 if there is one of that id."""
    _check_profile(payload)
    user = services.create_user(
        project_of(request),
        payload.external_user_id,
        name=payload.name or "",
        email=payload.email or "",
        metadata=payload.metadata,
    )
    return answer(as_json(user), HTTPStatus.CREATED)


@router.get("", auth=reads, response=schemas.UsersOut)
def list_users(request: HttpRequest, limit: Limit = 100, cursor: str | None = None) -> HttpResponse:
    """All users, the oldest first."""
    found, next_cursor = page(rows(EndUser).filter(project=project_of(request)), ("pk",), limit, cursor)
    return answer({"users": [as_json(user) for user in found], "next_cursor": next_cursor})


@router.get("/{user_id}", auth=reads, response=schemas.UserOut)
def get_user(request: HttpRequest, user_id: str) -> HttpResponse:
    """One user."""
    return answer(as_json(user_of(request, user_id)))


@router.delete("/{user_id}", auth=administers, response={204: None})
def delete_user(request: HttpRequest, user_id: str) -> HttpResponse:
    """Remove what says who the user is; what he used stays in the sums, under a name that means nothing."""
    services.anonymise(user_of(request, user_id))
    return nothing()


@router.post("/{user_id}/subscription", auth=administers, response=schemas.SubscriptionOut)
def subscribe(request: HttpRequest, user_id: str, payload: schemas.SubscriptionIn) -> HttpResponse:
    """Put the user on a plan; the running subscription ends where this one starts."""
    user = user_of(request, user_id)
    plan = plan_of(project_of(request), payload.plan_id, status=HTTPStatus.UNPROCESSABLE_ENTITY)
    if services.needs_period(plan):
        for field in ("period_start", "period_end"):
            if getattr(payload, field) is None:
                detail = "is required: the plan caps what a period may cost"
                raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, field)
    made = services.subscribe(
        user, plan, period_start=payload.period_start, period_end=payload.period_end,
        reference=payload.reference or "", by="API",
    )  # fmt: skip
    return answer(_subscription(user, made))


def as_json(user: EndUser) -> dict[str, Any]:
    """A user as the API says him."""
    return {
        "external_user_id": user.external_user_id,
        "user_id": user.external_user_id,
        "paygent_user_id": str(user.uuid),
        "name": user.name,
        "email": user.email,
        "metadata": user.metadata or {},
        "sdk_enabled": user.sdk_enabled,
        "created_at": iso(user.created_us),
    }


def _subscription(user: EndUser, made: Subscription) -> dict[str, Any]:
    assert made.plan is not None
    return {
        "user_id": user.external_user_id,
        "plan_id": str(made.plan.uuid),
        "plan": made.plan.name,
        "period_start": iso(made.period_start_us),
        "period_end": iso(made.period_end_us),
        "starts_at": iso(made.starts_us),
        "ends_at": None if made.ends_us >= Subscription.FOREVER_US else iso(made.ends_us),
        "reference": made.reference,
    }


def _check_profile(payload: schemas.UserIn) -> None:
    """What JSON can say and no database can store."""
    for field in ("external_user_id", "name", "email"):
        try:
            (getattr(payload, field) or "").encode()
        except UnicodeEncodeError as error:
            raise ServiceError(field, "holds a lone surrogate, which no encoding can store") from error
