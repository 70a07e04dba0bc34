"""Amounts, limits and decisions in words."""

from __future__ import annotations

from paygent.charts.formats import compact, dollars, number, percent
from paygent.core.models import PlanConfig
from paygent.core.plan import MODEL_LIMIT, SESSION_SPEND, TOTAL_SPEND
from paygent.dashboard.standing import LimitLine, Standing
from paygent.web.wording import label

NO_MODEL = "Without a model"
NONE = "\u2013"  # stands where there is no value
_REASONS = {TOTAL_SPEND: "Spend of the period", SESSION_SPEND: "Spend of the session"}


def plan_label(user: Standing) -> str:
    """The plan of a user."""
    if not user.has_plan:
        return f"{label(user.plan)} (not registered)" if user.plan != "default" else "No plan"
    return f"{label(user.plan)} (own terms)" if user.has_own_terms else label(user.plan)


def scope_label(scope: str | None) -> str:
    """What a limit is on, as in a gate's reason."""
    if scope is None:
        return "Other"
    if scope.startswith(MODEL_LIMIT):
        return f"Tokens of {scope[len(MODEL_LIMIT) :]}"
    return _REASONS.get(scope, label(scope))


def amount(scope: str | None, value: float) -> str:
    """An amount of a scope: nano-dollars as dollars, or tokens."""
    return number(value) if (scope or "").startswith(MODEL_LIMIT) else dollars(value)


def unit(scope: str) -> str:
    """What the amounts of a scope count, where that does not show."""
    return " tokens" if scope.startswith(MODEL_LIMIT) else ""


def used_of(line: LimitLine) -> str:
    """How much of a limit is used."""
    used = amount(line.scope, line.used)
    if line.cap is None:
        return f"{used}{unit(line.scope)}, no limit"
    return f"{used} of {amount(line.scope, line.cap)}{unit(line.scope)}"


def share_of(line: LimitLine) -> str:
    """How much of a limit is used, in per cent."""
    if line.cap is None:
        return NONE
    return percent(line.used / line.cap) if line.cap else "100%"


def usd(value: float, *, of: str = "") -> str:
    """US dollars of a plan; an infinite amount is none."""
    if value == float("inf"):
        return "Unlimited"
    return dollars(round(value * 1e9)) + of


def tokens(value: int) -> str:
    """A number of tokens."""
    return f"{compact(value)} tokens"


def per_million(usd_per_1k: float) -> str:
    """A rate as providers print it: dollars for a million tokens."""
    return dollars(round(usd_per_1k * 1e12))


def how_strict(plan: PlanConfig) -> str:
    """How a plan treats the call that meets its limit."""
    if plan.pre_call_estimate:
        return "A call must fit: it is refused if its estimate does not"
    return "The call that reaches the limit is let through; the next is refused"
