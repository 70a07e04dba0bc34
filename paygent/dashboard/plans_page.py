"""The plans as they bind now."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

from paygent.charts import dollars, number
from paygent.charts.markup import tag, text
from paygent.core.models import ModelCostRate, PlanConfig
from paygent.dashboard import markup
from paygent.dashboard.reading import PlansPage
from paygent.dashboard.wording import how_strict, per_million, usd
from paygent.ledger import DEFAULT_PLAN
from paygent.web.wording import label


def content(seen: PlansPage) -> list[str]:
    """The page's content."""
    plans = sorted(((_read(config), name) for name, config in seen.plans.items()), key=_order)
    cards = [_plan(name, plan, _users(name, seen)) for plan, name in plans]
    empty = markup.card(markup.nothing("No plan is registered: no user has a limit."))
    return [
        tag("div", tag("h1", "Plans"), class_="headline"),
        *_strangers(seen),
        tag("div", *cards, class_="plans") if cards else empty,
    ]


def _read(config: str) -> PlanConfig | None:
    """A stored plan; ``None`` where another version has written what this one cannot read."""
    try:
        return PlanConfig.from_backend(json.loads(config))
    except ValueError:  # pydantic's too
        return None


def _order(one: tuple[PlanConfig | None, str]) -> tuple[float, str]:
    plan, name = one
    return (plan.max_spend_per_period if plan is not None else math.inf, name)


def _users(name: str, seen: PlansPage) -> int | None:
    if seen.users is None:
        return None
    return seen.users.get(name, 0) + (seen.users.get(None, 0) if name == DEFAULT_PLAN else 0)


def _strangers(seen: PlansPage) -> Iterator[str]:
    """Users whose plan nobody registered have no limits, which should not pass unseen."""
    if DEFAULT_PLAN not in seen.plans and (count := (seen.users or {}).get(None, 0)):
        yield markup.notice(
            text(f"{_people(count)} without a plan, and no plan is named “default” to bind them.")
        )
    for name, count in sorted((seen.users or {}).items(), key=lambda one: one[0] or ""):
        if name is not None and name not in seen.plans:
            yield markup.notice(text(f"{_people(count)} on the plan “{name}”, which is not registered."))


def _people(count: int) -> str:
    return "One user is" if count == 1 else f"{number(count)} users are"


def _plan(name: str, plan: PlanConfig | None, users: int | None) -> str:
    count = "" if users is None else "1 user" if users == 1 else f"{number(users)} users"
    head = markup.heading(label(name), count)
    if plan is None:
        return markup.card(head, markup.nothing("Another version wrote this plan; it cannot be read here."))
    facts = tag(
        "dl", *(tag("div", tag("dt", text(k)), tag("dd", text(v))) for k, v in _facts(plan)), class_="facts"
    )
    name_line = tag("p", tag("code", text(name)), class_="key")
    return markup.card(head, name_line, facts, _models(plan), _tools(plan), kind="plan")


def _facts(plan: PlanConfig) -> Iterator[tuple[str, str]]:
    yield "Spend of a period", usd(plan.max_spend_per_period)
    yield "Spend of a session", usd(plan.max_spend_per_session)
    yield "Warned from", f"{plan.soft_gate_at:.0%}"
    yield "Refused from", f"{plan.hard_gate_at:.0%}"
    yield "A session lasts", f"{plan.session_timeout_minutes:g} minutes"
    yield "At the limit", how_strict(plan)


def _models(plan: PlanConfig) -> str:
    rates: dict[str, ModelCostRate | None] = dict(plan.cost_rates)
    names = sorted({*plan.model_limits, *rates})
    rows = [_model_cells(name, plan, rates.get(name)) for name in names]
    if plan.default_cost_rate is not None:
        rows.append(["Any other model", *_rate_cells(plan.default_cost_rate), "Unlimited"])
    if not rows:
        return tag("p", "Every model, at the prices of the catalogue.", class_="remark")
    title = "Models, with prices for a million tokens"
    table = markup.grid(title, ["Model", "Input", "Output", "Tokens of a period"], rows, numbers=[1, 2, 3])
    return tag("h3", text(title)) + table


def _model_cells(name: str, plan: PlanConfig, rate: ModelCostRate | None) -> list[str]:
    limit = plan.model_limits.get(name)
    cap = limit.max_tokens_per_period if limit is not None else None
    priced = _rate_cells(rate) if rate is not None else ["catalogue", "catalogue"]
    return [text(name), *priced, "Unlimited" if cap is None else number(cap)]


def _rate_cells(rate: ModelCostRate) -> list[str]:
    return [text(per_million(rate.input)), text(per_million(rate.output))]


def _tools(plan: PlanConfig) -> str:
    if not plan.tool_costs:
        return ""
    rows = [[text(name), dollars(round(cost * 1e9))] for name, cost in sorted(plan.tool_costs.items())]
    title = "Tools, with prices for a call"
    return tag("h3", text(title)) + markup.grid(title, ["Tool", "Price"], rows, numbers=[1])
