"""Plans: saved as new versions, never edited."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from pydantic import ValidationError

from paygent.core.models import PlanConfig
from paygent.ledger import DEFAULT_PLAN
from paygent_django.ledger import _plans
from paygent_django.ledger._accounts import Accounts
from paygent_django.models import Plan, PlanVersion, Project
from paygent_django.services._base import ServiceError, rows, writing
from paygent_django.services.projects import checked_name

NAME_LENGTH_MAX = 500
PRICE_MAX_NANO = 10**9 * 10**9
INTERVALS = tuple(value for value, _ in PlanVersion.INTERVALS)
_UNSET: Any = object()


class SavedPlan(NamedTuple):
    """A plan, and the number of its new version; ``None``: it says that already."""

    plan: Plan
    number: int | None


def save_plan(
    project: Project,
    name: str,
    config: PlanConfig | Mapping[str, Any],
    *,
    label: str = _UNSET,
    price_nano: int | None = _UNSET,
    currency: str = _UNSET,
    interval: str = _UNSET,
    rank: int = _UNSET,
    by: str = "",
    based_on: int | None = None,
) -> SavedPlan:
    """
    Save a plan: other content is a new version, which binds every process within a second.

    What is left out stays as it was. *based_on* is the number of the version that was edited, 0 for a new
    plan: whoever has not seen the current one does not undo it.

    Raises:
        ServiceError: A field cannot be right; ``field`` is its path, as in ``config.soft_gate_at``, and
            ``version`` where *based_on* is not the current version any more.
    """
    checked_name("name", name, NAME_LENGTH_MAX)
    given = {
        "label": label,
        "price_nano": price_nano,
        "currency": currency,
        "interval": interval,
        "rank": rank,
    }
    said = {field: value for field, value in given.items() if value is not _UNSET}
    check_said(said)
    text = json.dumps(_config(config).model_dump(mode="json"))
    with writing(project.pk) as accounts:
        _check_default(project, name)
        if based_on is not None:
            _check_version(accounts, name, based_on)
        number = _plans.put(accounts, name, text, said, created_by=by[:200])
        plan: Plan = plans_of(project).get(pk=accounts.plan_id(name))
    return SavedPlan(plan, number)


def set_default_plan(project: Project, plan: Plan | None) -> None:
    """
    Choose the plan of users without a subscription; ``None``: the plan named ``default``.

    Raises:
        ServiceError: The plan is another project's, was never configured, or a plan named ``default`` exists:
            that one is for everybody already.
    """
    if plan is not None:
        if plan.project_id != project.pk or plan.current_id is None:
            raise ServiceError("plan", "there is no such plan in this project", "unknown")
        if plan.name != DEFAULT_PLAN and find_plan(project, DEFAULT_PLAN) is not None:
            raise ServiceError("plan", "the plan named 'default' is for everybody without a subscription")
    rows(Project).filter(pk=project.pk).update(default_plan=plan)
    project.default_plan = plan


def archive_plan(plan: Plan, archived: bool = True) -> None:
    """Take a plan out of what is offered; whoever is on it stays on it."""
    rows(Plan).filter(pk=plan.pk).update(is_archived=archived)
    plan.is_archived = archived


def find_plan(project: Project, name: str) -> Plan | None:
    """The configured plan of that name."""
    found: Plan | None = plans_of(project).filter(name=name, current__isnull=False).first()
    return found


def plans_of(project: Project) -> Any:
    """The project's plans with their current versions, by rank and name."""
    return (
        rows(Plan)
        .filter(project=project)
        .select_related("current", "project")
        .order_by("current__rank", "name")
    )


def check_said(said: Mapping[str, Any]) -> None:
    """
    Check what a plan says besides its limits.

    Raises:
        ServiceError: A field cannot be right.
    """
    for field, value in said.items():
        problem = _problem(field, value)
        if problem:
            raise ServiceError(field, problem)


def _problem(field: str, value: Any) -> str | None:
    if field == "label":
        return (
            None
            if isinstance(value, str) and len(value) <= 200
            else "must be a text of at most 200 characters"
        )
    if field == "currency":
        is_code = isinstance(value, str) and len(value) == 3 and value.isascii() and value.isupper()
        return None if is_code else "must be a code of three capitals, such as USD"
    if field == "interval":
        return None if value in INTERVALS else f"must be one of {', '.join(INTERVALS)}"
    if value is None and field == "price_nano":
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        return "must be a whole number"
    if field == "price_nano":
        return None if 0 <= value <= PRICE_MAX_NANO else "must not be negative, nor absurdly large"
    return None if abs(value) < 1 << 31 else "is too large"


def _check_version(accounts: Accounts, name: str, based_on: int) -> None:
    current = _plans.locked_number(accounts, name)
    if current != based_on:
        raise ServiceError("version", f"somebody saved version {current} meanwhile", "overtaken")


def _check_default(project: Project, name: str) -> None:
    default: Plan | None = (
        rows(Plan).filter(pk=project.default_plan_id).first() if project.default_plan_id else None
    )
    if name == DEFAULT_PLAN and default is not None and default.name != DEFAULT_PLAN:
        raise ServiceError(
            "name", f"the default plan is {default.name!r}; choose another name, or unset it first"
        )


def _config(config: PlanConfig | Mapping[str, Any]) -> PlanConfig:
    try:
        return PlanConfig.model_validate(config if isinstance(config, PlanConfig) else dict(config))
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(["config", *map(str, first["loc"])])
        raise ServiceError(path, str(first["msg"])) from error


def price_of(nano: int | None) -> Decimal | None:
    """A price in its currency, exactly."""
    return None if nano is None else Decimal(nano) / 10**9


def configured(project: Project) -> Iterator[Plan]:
    """Plans that are offered: configured, and not archived."""
    return iter(plans_of(project).filter(current__isnull=False, is_archived=False))
