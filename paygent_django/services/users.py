"""End users: made, found, changed, exported and made anonymous."""

from __future__ import annotations

from typing import Any

from django.db import IntegrityError, transaction
from django.dispatch import Signal

from paygent.context import checked_user_id
from paygent.core.models import PlanConfig
from paygent.core.windows import from_us
from paygent_django.database import database_alias
from paygent_django.models import (
    EndUser,
    GateEvent,
    Grant,
    Job,
    Project,
    Session,
    Subscription,
    Total,
    UsageEvent,
)
from paygent_django.services import _admin_log
from paygent_django.services._base import ServiceError, locked, rows
from paygent_django.services._forgetting import forget
from paygent_django.services.projects import checked_name
from paygent_django.services.values import event_as_dict, gate_as_dict

# Both are sent with ``user``, to apps that keep something of him too. The first in the transaction that makes
# him anonymous: remove it. The second with an export: return it, as a dict.
anonymising = Signal()
exporting = Signal()

_PROFILE = {"name": 300, "email": 320}


def find_user(project: Project, external_user_id: str) -> EndUser | None:
    """The user of that name in the project."""
    found: EndUser | None = rows(EndUser).filter(project=project, external_user_id=external_user_id).first()
    return found


def ensure_user(project: Project, external_user_id: str) -> EndUser:
    """The user of that name, made if need be."""
    name = _checked_id(external_user_id)
    made: EndUser = rows(EndUser).get_or_create(project=project, external_user_id=name)[0]
    return made


def create_user(
    project: Project,
    external_user_id: str,
    *,
    name: str = "",
    email: str = "",
    metadata: dict[str, Any] | None = None,
) -> EndUser:
    """
    Register a user.

    Raises:
        ServiceError: A field cannot be stored, or there is such a user (code ``exists``).
    """
    fields = {"external_user_id": _checked_id(external_user_id), "metadata": metadata or {}}
    fields |= _profile(name=name, email=email)
    try:
        with transaction.atomic(using=database_alias()):
            made: EndUser = rows(EndUser).create(project=project, **fields)
    except IntegrityError as error:
        raise ServiceError("external_user_id", "there is a user of that name already", "exists") from error
    return made


def update_user(
    user: EndUser,
    *,
    name: str | None = None,
    email: str | None = None,
    metadata: dict[str, Any] | None = None,
) -> None:
    """Change what is given; the rest stays."""
    given = {"name": name, "email": email}
    changes: dict[str, Any] = _profile(
        **{field: value for field, value in given.items() if value is not None}
    )
    if metadata is not None:
        changes["metadata"] = metadata
    _change(user, **changes)


def set_metering(user: EndUser, enabled: bool) -> None:
    """Switch metering and the gate on or off for one user; every process hears of it within a second."""
    _change(user, sdk_enabled=bool(enabled))


def set_own_config(user: EndUser, config: PlanConfig | None) -> None:
    """Bind one user by limits of his own, in place of his plan's; ``None`` takes them away."""
    _change(user, own_config=None if config is None else config.model_dump(mode="json"))


def link_auth_user(user: EndUser, auth_user: Any) -> None:
    """Say which user of the project's own this is."""
    _change(user, auth_user_id=str(auth_user.pk))


def anonymise(user: EndUser) -> None:
    """
    Remove what says who the user is; what he used stays, under a name that means nothing.

    Profile, metadata, texts that the app has given (see ``_forgetting``), webhooks that tell of him and what
    the log of Django's admin says go;
    apps that keep more of him hear of it by :data:`anonymising`. Calls that are made under the old name later
    begin a new user.
    """
    with locked(user) as (accounts, _):
        _change(
            user, external_user_id=f"anonymised-{user.uuid}", name="", email="", metadata={},
            auth_user_id=None, anonymised_us=accounts.now_us,
        )  # fmt: skip
        _admin_log.forget(user)  # while his rows are there
        forget(accounts, user)
        anonymising.send(EndUser, user=user)


def export_user(user: EndUser) -> dict[str, Any]:
    """
    Everything that is kept of one user, as JSON can write it.

    Whoever has many events takes much memory: the admin writes them batch by batch.
    """
    return {
        **about_user(user),
        "events": [event_as_dict(row) for row in _of(user, UsageEvent).iterator()],
        "gate_events": [gate_as_dict(row) for row in _of(user, GateEvent).iterator()],
    }


def about_user(user: EndUser) -> dict[str, Any]:
    """An export without events and decisions; apps add theirs by :data:`exporting`."""
    export = {
        "user_id": user.external_user_id,
        "paygent_user_id": str(user.uuid),
        "auth_user_id": user.auth_user_id,
        "name": user.name,
        "email": user.email,
        "metadata": user.metadata,
        "sdk_enabled": user.sdk_enabled,
        "limits": user.own_config,
        "created_at": from_us(user.created_us).isoformat(),
        "subscriptions": [_subscription(row) for row in _of(user, Subscription).select_related("plan")],
        "grants": list(_of(user, Grant).values("key", "window", "amount_nusd", "reason", "created_us")),
        "totals": list(_of(user, Total).values("scope", "window", "amount")),
        "sessions": list(_of(user, Session).values("own_id", "session_id", "started_us", "ends_us")),
        "jobs": list(_of(user, Job).values("provider", "job_id", "session_id", "model", "metadata")),
    }
    for _, kept in exporting.send(EndUser, user=user):
        export.update(kept)
    return export


def _of(user: EndUser, model: Any) -> Any:
    return rows(model).filter(user=user).order_by("pk")


def _subscription(row: Subscription) -> dict[str, Any]:
    ends = None if row.ends_us >= Subscription.FOREVER_US else from_us(row.ends_us).isoformat()
    plan = row.plan.name if row.plan else None
    starts = from_us(row.starts_us).isoformat()
    return {"plan": plan, "starts": starts, "ends": ends, "reference": row.reference}


def _change(user: EndUser, **changes: Any) -> None:
    """Update these columns alone: the ledger writes others of the same row."""
    if changes:
        rows(EndUser).filter(pk=user.pk).update(**changes)
        for name, value in changes.items():
            setattr(user, name, value)


def _profile(**given: object) -> dict[str, Any]:
    return {field: value and checked_name(field, value, _PROFILE[field]) for field, value in given.items()}


def _checked_id(value: object) -> str:
    try:
        checked = checked_user_id(value)
    except (ValueError, TypeError) as error:
        raise ServiceError("external_user_id", str(error)) from error
    if checked is None:
        raise ServiceError("external_user_id", "must not be empty")
    return checked
