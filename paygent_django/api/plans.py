"""``/config/plans``."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from django.db import transaction
from django.http import HttpRequest, HttpResponse
from pydantic import ValidationError

from paygent.core.models import PlanConfig
from paygent.core.plan import NUSD_PER_USD
from paygent_django import services
from paygent_django.api import schemas
from paygent_django.api.auth import administers, project_of, reads
from paygent_django.api.bodies import answer, read_json
from paygent_django.api.problems import Problem
from paygent_django.api.routing import Router
from paygent_django.api.values import without_none
from paygent_django.database import database_alias
from paygent_django.models import ApiKey, Plan, Project
from paygent_django.services._base import rows

router = Router(tags=["plans"])
_OFFER = ("label", "price", "currency", "interval", "rank")


@router.post("/plans", auth=administers, response=schemas.PlansOut)
def save_plans(request: HttpRequest, payload: schemas.PlansIn) -> HttpResponse:
    """Make or change plans by name, all of them or none."""
    project = project_of(request)
    names = [plan.name for plan in payload.plans]
    twice = next((index for index, name in enumerate(names) if name in names[:index]), None)
    if twice is not None:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "is given twice", f"plans.{twice}.name")
    with transaction.atomic(using=database_alias()):
        saved = [_save(project, plan, _by(request)) for plan in payload.plans]
    return answer({"plans": [as_json(plan) for plan in saved]})


@router.get("/plans", auth=reads, response=schemas.PlansOut)
def list_plans(request: HttpRequest) -> HttpResponse:
    """All plans, from the lowest rank up."""
    plans = services.plans_of(project_of(request)).filter(current__isnull=False)
    return answer({"plans": [as_json(plan) for plan in plans]})


@router.patch(
    "/plans/{plan_id}",
    auth=administers,
    response=schemas.PlanOut,
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
    },
)
def change_plan(request: HttpRequest, plan_id: str) -> HttpResponse:
    """Change what is given of a plan; the rest stays as it is."""
    changes = read_json(request)
    if not isinstance(changes, dict):
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "the body must be a JSON object", "")
    project = project_of(request)
    with transaction.atomic(using=database_alias()):
        _lock(project, plan_id)
        plan = plan_of(project, plan_id)
        if changes.get("name", plan.name) != plan.name:
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "a plan keeps its name", "name")
        merged = _merged(as_json(plan), changes)
        return answer(as_json(_save(project, merged, _by(request), given=set(changes))))


def plan_of(project: Project, plan_id: str, field: str = "plan_id", status: int = 404) -> Plan:
    """
    The plan of that id in the project.

    Raises:
        Problem: *status* where there is none.
    """
    found: Plan | None = services.plans_of(project).filter(uuid=_uuid(plan_id)).first()
    if found is None:
        raise Problem(status, "there is no such plan", field)
    return found


def _lock(project: Project, plan_id: str) -> None:
    """Have other changes of the plan wait, before it is read: else each would undo what it has not seen."""
    list(rows(Plan).select_for_update().filter(project=project, uuid=_uuid(plan_id)).values_list("pk"))


def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


def config_as_json(config: PlanConfig) -> dict[str, Any]:
    """Limits and rates without what is unlimited: clients in the field stumble over ``null``."""
    said: dict[str, Any] = without_none(config.model_dump(mode="json"))
    return said


def as_json(plan: Plan) -> dict[str, Any]:
    """A plan as the API says it."""
    config, version = plan.config or PlanConfig(), plan.current
    said: dict[str, Any] = {"id": str(plan.uuid), "name": plan.name, **config_as_json(config)}
    if version is not None:
        price = services.price_of(version.price_nano)
        said.update(
            label=version.label, currency=version.currency, interval=version.interval, rank=version.rank,
            version=version.key,
        )  # fmt: skip
        if price is not None:
            said["price"] = float(price)
    if plan.is_archived:
        said["is_archived"] = True
    return said


def _save(project: Project, plan: schemas.PlanIn, by: str, given: set[str] | None = None) -> Plan:
    given = plan.model_fields_set if given is None else given
    said = {name: getattr(plan, name) for name in _OFFER if name in given}
    if "price" in said:
        price = said.pop("price")
        said["price_nano"] = None if price is None else round(price * NUSD_PER_USD)
    config = PlanConfig.model_validate({name: getattr(plan, name) for name in PlanConfig.model_fields})
    return services.save_plan(project, plan.name, config, by=by, **said).plan


def _merged(before: Mapping[str, Any], changes: Mapping[str, Any]) -> schemas.PlanIn:
    known = {name: value for name, value in before.items() if name in schemas.PlanIn.model_fields}
    try:
        return schemas.PlanIn.model_validate({**known, **changes})
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(map(str, first["loc"]))
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(first["msg"]), path) from error


def _by(request: HttpRequest) -> str:
    key: ApiKey = request.auth
    return f"API key {key.lookup}…"
