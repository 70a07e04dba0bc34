"""What a refusal says to people, and the problem object that says it to programs (RFC 9457)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from paygent.core.errors import Refusal

PROBLEMS_URL = "https://paygent.to/problems/"

TITLES = {
    "period_spend": "Plan limit reached",
    "session_spend": "Session limit reached",
    "model_tokens": "Plan limit reached",
    "model_not_in_plan": "Not part of your plan",
    "no_plan": "No plan yet",
    "no_user": "Please sign in",
    "busy": "One moment, please",
    "disabled": "Switched off",
    "unavailable": "Temporarily unavailable",
}
DETAILS = {
    "period_spend": "You have used all of your {plan}.",
    "session_spend": "You have used all that your {plan} includes for one session.",
    "model_tokens": "You have used all of the {model} tokens of your {plan}.",
    "model_not_in_plan": "Your {plan} does not include {model}.",
    "no_plan": "This needs a plan, and you have none yet.",
    "no_user": "Sign in to go on: we cannot tell whose plan this would use.",
    "busy": "Other requests of yours are using what is left of your {plan}; try again in a moment.",
    "disabled": "This is switched off for your account.",
    "unavailable": "Your plan cannot be checked at the moment; please try again shortly.",
}
_TOO_SMALL = "What is left of your {plan} does not cover this request."
NO_UPGRADE = frozenset({"no_user", "busy", "disabled"})


@dataclass(frozen=True, slots=True)
class Offer:
    """The plan that a blocked user is offered; ``price`` is decimal text, as in ``"49.00"``."""

    name: str
    label: str = ""
    price: str | None = None
    currency: str = "USD"
    interval: str = "month"

    def as_json(self) -> dict[str, Any]:
        """Return the offer as it stands in the answer."""
        shown = {"name": self.name, "label": self.label or label(self.name)}
        if self.price is None:
            return shown
        return {**shown, "price": self.price, "currency": self.currency, "interval": self.interval}


def problem(code: str, status: int, detail: str, *, retryable: bool, **extra: Any) -> dict[str, Any]:
    """Return the problem object of *code*; every key is always present."""
    known = {"gate_reason": None, "retryable": retryable, "resets_at": None, "limit": None, "plan": None}
    head = {
        "type": PROBLEMS_URL + code,
        "title": TITLES[code],
        "status": status,
        "detail": detail,
        "code": code,
    }
    return {**head, **known, "upgrade": None, **extra}


def detail(code: str, refusal: Refusal) -> str:
    """A sentence for the user; the engine's own message may hold amounts and advice for developers."""
    limit = refusal.guard_result
    is_spent = limit.current_value >= limit.limit_value or code not in ("period_spend", "session_spend")
    plan = f"{label(refusal.plan)} plan" if refusal.plan and refusal.plan != "default" else "plan"
    sentence = DETAILS[code] if is_spent else _TOO_SMALL
    return sentence.format(plan=plan, model=refusal.model or "this model")


def label(name: str) -> str:
    """The name of a plan as people read it."""
    words = name.replace("_", " ").replace("-", " ").split()
    return " ".join(word[:1].upper() + word[1:] for word in words)


def amount(value: float, unit: str) -> str:
    """Dollars with at least two and at most six decimals; whole tokens."""
    if unit != "usd":
        return f"{value:.0f}"
    whole, _, rest = f"{Decimal(repr(value)):.6f}".partition(".")
    return f"{whole}.{rest[:2]}{rest[2:].rstrip('0')}"


def utc(moment: datetime | None) -> str | None:
    """Whole seconds in UTC, rounded up: who comes back then comes after the reset."""
    if moment is None:
        return None
    moment = moment.astimezone(timezone.utc)
    if moment.microsecond:
        moment = moment.replace(microsecond=0) + timedelta(seconds=1)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
