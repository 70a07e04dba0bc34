"""What users have used: the bootstrap of a client, and reports."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Literal, NamedTuple
from uuid import UUID

from django.db import connections
from django.db.models import Sum
from django.http import HttpRequest, HttpResponse

from paygent.core.models import PlanConfig
from paygent.core.plan import MODEL_COST, MODEL_LIMIT, TOTAL_SPEND
from paygent.core.windows import Window, billing_period, calendar_month
from paygent.ledger import DEFAULT_PLAN, Account, Bucket, PlanRow
from paygent.ledgers._rows import plan_of
from paygent.wire.fields import moment_us
from paygent_django.api import schemas
from paygent_django.api.auth import ledger_of, project_of, reads, user_of
from paygent_django.api.bodies import answer
from paygent_django.api.plans import config_as_json
from paygent_django.api.problems import Problem
from paygent_django.api.routing import Router
from paygent_django.api.values import iso, usd
from paygent_django.database import database_alias
from paygent_django.ledger._accounts import Accounts
from paygent_django.ledger._pipeline import can_pipeline, pipelined
from paygent_django.ledger._planner import BY_KEYS
from paygent_django.ledger._rows import DjangoRows
from paygent_django.models import EndUser, Total, UsageEvent
from paygent_django.models.fields import escape
from paygent_django.services._base import now_us, reading, rows

router = Router(tags=["usage"])
_NO_END_US = 1 << 62


@router.get("/{user_id}/session", auth=reads, response=schemas.SessionOut)
def session(request: HttpRequest, user_id: str) -> HttpResponse:
    """What a client must know of a user before his first call: plan, limits, usage."""
    found = _glance(project_of(request).pk, user_id)
    if found is None:
        raise Problem(HTTPStatus.NOT_FOUND, "there is no such user", "user_id")
    account, plan, default, window, totals, moment_us, uuid = found
    if plan.config is None and account.plan is None:
        raise Problem(HTTPStatus.NOT_FOUND, "the user has no plan, and there is no default plan", "user_id")
    config = PlanConfig.from_backend(json.loads(plan.config or "{}"))
    return answer(
        {
            "user_id": user_id,
            "paygent_user_id": uuid,
            "plan": plan.name if default is None else default.name,
            "plan_config": config_as_json(config),
            "plan_version": plan.key,
            "current_usage": _current({scope: amount for (scope, _), amount in totals.items()}),
            "billing_period": (
                None if account.period is None else {"start": iso(window.start_us), "end": iso(window.end_us)}
            ),
            "sdk_enabled": account.sdk_enabled,
            "server_time": iso(moment_us),
        }
    )


@router.get("/{user_id}/usage", auth=reads, response=schemas.UsageOut)
def usage(
    request: HttpRequest,
    user_id: str,
    period: Literal["current_period", "current_month", "all"] = "current_period",
    since: str | None = None,
    until: str | None = None,
    breakdown: Literal["model"] | None = None,  # noqa: ARG001  # always broken down
) -> HttpResponse:
    """Cost and tokens in a period, or between two moments."""
    user = user_of(request, user_id)
    if since is None and until is None:
        return answer({"user_id": user_id, "period": period, **_of_period(user, period)})
    start_us = 0 if since is None else moment_us({"since": since}, "since")
    end_us = _NO_END_US if until is None else moment_us({"until": until}, "until")
    if end_us <= start_us:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "must be after since", "until")
    events = rows(UsageEvent).filter(user=user, timestamp_us__gte=start_us, timestamp_us__lt=end_us)
    return answer({"user_id": user_id, "period": "custom", **_of_events(events)})


@router.get("/{user_id}/totals", auth=reads, response=list[list[Any]])
def totals(request: HttpRequest, user_id: str) -> HttpResponse:
    """Everything posted, as [scope, window, amount] in nano-dollars or tokens."""
    found = ledger_of(request).totals(user_id)
    return answer([[scope, window, amount] for (scope, window), amount in found.items()])


class _Glance(NamedTuple):
    """What binds a user at this moment, and what he has used."""

    account: Account
    plan: PlanRow
    default: PlanRow | None
    window: Window
    totals: dict[Bucket, int]
    now_us: int
    uuid: str


def _glance(project_pk: int, user_id: str) -> _Glance | None:
    """Read as the ledger reads, and lock nothing: this is on the path of each client's first call."""
    with _reading(project_pk) as accounts:
        named, values = accounts.sql.of_project(EndUser, "external_user_id", project_pk, [escape(user_id)])
        take = accounts.look([user_id], locks=False)
        uuids = accounts.sql.ask(
            f"SELECT uuid FROM {accounts.sql.table(EndUser)} WHERE {named}",  # noqa: S608  # our own names
            values,
        )
        take()
        held = accounts.held(user_id)
        if held is None:
            return None
        rows, account = DjangoRows(accounts, shard=0), held.account
        plan = plan_of(rows, account)
        default = rows.plan(DEFAULT_PLAN) if account.plan is None else None
        window = billing_period(account.period, accounts.now_us)
        totals = rows.totals(user_id, [window.key])
        return _Glance(account, plan, default, window, totals, accounts.now_us, str(UUID(str(uuids()[0][0]))))


@contextlib.contextmanager
def _reading(project_pk: int) -> Iterator[Accounts]:
    connection = connections[database_alias()]
    if not can_pipeline(connection):
        with reading(project_pk) as accounts:
            yield accounts
        return
    with pipelined(connection, BY_KEYS) as sql:
        yield Accounts(sql, project_pk)


def _of_period(user: EndUser, period: str) -> dict[str, Any]:
    moment_us = now_us()
    if period == "all":
        sums = rows(Total).filter(user=user).values_list("scope").annotate(Sum("amount"))
        return _report(
            {scope: int(amount) for scope, amount in sums.order_by("scope")},
            rows(UsageEvent).filter(user=user),
        )
    if period == "current_month":
        month = calendar_month(moment_us)
        return _of_events(_within(user, month))
    with reading(user.project_id) as accounts:
        accounts.load([user.external_user_id])
        held = accounts.held(user.external_user_id)
        window = billing_period(None if held is None else held.account.period, moment_us)
    sums = dict(rows(Total).filter(user=user, window=window.key).values_list("scope", "amount"))
    return _report(sums, rows(UsageEvent).filter(user=user, period=window.key))


def _within(user: EndUser, window: Window) -> Any:
    return rows(UsageEvent).filter(
        user=user, timestamp_us__gte=window.start_us, timestamp_us__lt=window.end_us
    )


def _of_events(events: Any) -> dict[str, Any]:
    sums: dict[str, int] = {TOTAL_SPEND: 0}
    by_model = events.values_list("model").annotate(
        Sum("cost_nusd"), Sum("input_tokens"), Sum("output_tokens")
    )
    for model, cost_nusd, given, written in by_model.order_by("model"):
        sums[TOTAL_SPEND] += int(cost_nusd)
        if model is not None:
            sums[MODEL_COST + model] = int(cost_nusd)
            sums[MODEL_LIMIT + model] = int(given) + int(written)
    return _report(sums, events)


def _report(sums: dict[str, int], events: Any) -> dict[str, Any]:
    tools = events.filter(tool_calls__isnull=False).values_list("tool_calls", flat=True)
    current = _current(sums)
    return {
        "total_cost": current["period_cost"],
        "total_tokens": current["period_tokens_total"],
        "tokens_by_model": current["period_tokens_by_model"],
        "cost_by_model": current["period_cost_by_model"],
        "tool_calls_count": sum(len(names) for names in tools.iterator()),
    }


def _current(sums: dict[str, int]) -> dict[str, Any]:
    tokens = _by_model(sums, MODEL_LIMIT)
    return {
        "period_cost": usd(sums.get(TOTAL_SPEND, 0)),
        "period_tokens_total": sum(tokens.values()),
        "period_tokens_by_model": tokens,
        "period_cost_by_model": {model: usd(cost) for model, cost in _by_model(sums, MODEL_COST).items()},
    }


def _by_model(sums: dict[str, int], prefix: str) -> dict[str, int]:
    return {scope[len(prefix) :]: amount for scope, amount in sums.items() if scope.startswith(prefix)}
