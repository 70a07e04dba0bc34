"""
What a refused call looks like over HTTP: status, headers and body, the same under every framework.

The plugins pass in the error and the request's headers, and send what comes back. Amounts are decimal text,
moments are ISO 8601 in UTC; ``code`` is the stable key for programs, ``detail`` the sentence for people.

Sources: RFC 9457 (problem details), RFC 6585 and 9110 (429, 503, ``Retry-After``), the SSE part of the HTML
standard.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

from paygent.core.errors import PaygentLimitExceeded, PaygentUnavailable, Refusal
from paygent.web.limit_page import content_policy, page

log = logging.getLogger("paygent")

PROBLEMS_URL = "https://paygent.to/problems/"
RETRY_AFTER_S_MAX = 3600  # SDK clients obey a month-long Retry-After by sleeping
UNAVAILABLE_RETRY_S = 5
CHAIN_MAX = 100

Kind = Literal["html", "problem", "json"]
Declined = PaygentLimitExceeded | PaygentUnavailable
UpgradeUrl = str | Callable[[Refusal], str | None] | None

_TITLES = {
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
_DETAILS = {
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
_NO_UPGRADE = frozenset({"no_user", "busy", "disabled"})


class LimitResponse(NamedTuple):
    """A complete answer; header names are lower-case."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


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
        shown = {"name": self.name, "label": self.label or _label(self.name)}
        if self.price is None:
            return shown
        return {**shown, "price": self.price, "currency": self.currency, "interval": self.interval}


@dataclass(frozen=True, slots=True)
class LimitResponder:
    """
    Words refusals for one app.

    Args:
        upgrade_url: Where a blocked user can upgrade: ``https://…`` or a path of the app itself. Text may
            hold ``{plan}`` (the present plan's name, percent-encoded); a callable gets the
            :class:`~paygent.core.errors.Refusal` and returns the address, or ``None`` for no link.
        expose_amounts: False leaves the numbers out: users see that a limit is reached, not which.
        status_code: Status of a spent limit, 429 or 402.
        offers: What to suggest, by the name of the present plan.

    Raises:
        ValueError: *upgrade_url* leads elsewhere or holds an unknown placeholder; another *status_code*.
    """

    upgrade_url: UpgradeUrl = None
    expose_amounts: bool = True
    status_code: int = 429
    offers: Mapping[str, Offer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.status_code not in (429, 402):
            raise ValueError(f"status_code={self.status_code!r}: must be 429 or 402")
        if isinstance(self.upgrade_url, str):
            checked_url(_filled(self.upgrade_url, "plan"))

    def response(
        self, error: Declined, headers: Mapping[str, str], *, now: datetime | None = None
    ) -> LimitResponse:
        """Answer a request with these *headers* (lower-case names), in the form its client reads best."""
        problem = self.problem(error)
        kind = negotiated(headers)
        common = (("cache-control", "no-store"), ("vary", "Accept"), *_retry_headers(problem, now))
        if kind == "html":
            policy = ("content-security-policy", content_policy())
            return _answer(problem, "text/html; charset=utf-8", (*common, policy), page(problem).encode())
        media = "application/problem+json" if kind == "problem" else "application/json"
        return _answer(problem, media, common, _json(problem))

    def event(self, error: Declined) -> bytes:
        """
        Return the last event of a server-sent stream that had already begun.

        The empty lines before it end an event that was cut off in the middle.
        """
        problem = self.problem(error)
        told = {"type": "error", "problem": problem.pop("type"), **problem}
        return b"\n\nevent: error\ndata: " + _json(told) + b"\n\n"

    def problem(self, error: Declined) -> dict[str, Any]:
        """Return the problem object of *error*; every key is always present."""
        if isinstance(error, PaygentUnavailable):
            return _problem("unavailable", 503, _DETAILS["unavailable"], retryable=True)
        refusal = error.refusal
        code = refusal.code if refusal.code in _TITLES else "model_not_in_plan"
        return _problem(
            code,
            {"no_user": 401, "busy": 429}.get(code, self.status_code),
            _detail(code, refusal),
            gate_reason=refusal.guard_result.gate_reason,
            retryable=refusal.retryable,
            resets_at=_utc(refusal.resets_at),
            limit=self._limit(code, refusal),
            plan={"name": refusal.plan, "label": _label(refusal.plan)} if refusal.plan else None,
            upgrade=None if code in _NO_UPGRADE else self._upgrade(code, refusal),
        )

    def _limit(self, code: str, refusal: Refusal) -> dict[str, Any] | None:
        if code in ("no_plan", "no_user", "disabled"):
            return None
        shown: dict[str, Any] = {"unit": refusal.unit}
        if self.expose_amounts and math.isfinite(refusal.limit):
            left = max(0.0, refusal.limit - refusal.used)
            for name, value in (("limit", refusal.limit), ("used", refusal.used), ("remaining", left)):
                shown[name] = _amount(value, refusal.unit)
        return {**shown, "model": refusal.model if refusal.unit == "tokens" else None}

    def _upgrade(self, code: str, refusal: Refusal) -> dict[str, Any]:
        offer = self.offers.get(refusal.plan or "")
        suggested = offer.as_json() if offer is not None else None
        label = f"Upgrade to {suggested['label']}" if suggested else "Upgrade your plan"
        return {
            "required": code != "session_spend",  # a session's limit passes by itself, soon
            "url": self._url(refusal),
            "label": "Choose a plan" if code == "no_plan" else label,
            "suggested_plan": suggested,
        }

    def _url(self, refusal: Refusal) -> str | None:
        """The address to upgrade at; an address that cannot be used is logged and left out."""
        if isinstance(self.upgrade_url, str):
            return checked_url(_filled(self.upgrade_url, refusal.plan or "none"))
        try:
            url = self.upgrade_url(refusal) if self.upgrade_url is not None else None
            return checked_url(url) if url else None
        except Exception:
            log.exception("upgrade_url failed: the refusal is sent without a link")
            return None


# --- finding the refusal ----------------------------------------------------------------------------------


def find_refusal(error: BaseException) -> Declined | None:
    """
    Return the refusal that *error* is, or was made from: in its causes, its context or its group.

    Frameworks wrap what passes them: Starlette re-raises as ``RuntimeError`` once a response has started,
    task groups raise exception groups.
    """
    for found in _chain(error):
        if isinstance(found, (PaygentLimitExceeded, PaygentUnavailable)):
            return found
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    waiting, seen = [error], set[int]()
    while waiting and len(seen) < CHAIN_MAX:
        current = waiting.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        members = getattr(current, "exceptions", None)  # groups have no common base before Python 3.11
        if isinstance(members, (tuple, list)):
            waiting += [member for member in members if isinstance(member, BaseException)]
        context = None if current.__suppress_context__ else current.__context__
        waiting += [linked for linked in (current.__cause__, context) if linked is not None]


# --- choosing the form ------------------------------------------------------------------------------------


def negotiated(headers: Mapping[str, str]) -> Kind:
    """
    Choose the form of the answer: a page for a person who follows a link or sends a form, else JSON.

    Args:
        headers: The request's headers, names in lower case.
    """
    accept = headers.get("accept", "")
    destination = headers.get("sec-fetch-dest", "document")
    is_script = destination not in ("document", "iframe", "frame") or "x-requested-with" in headers
    weights = dict(_weights(accept))
    anything = max(weights.get("application/*", 0.0), weights.get("*/*", 0.0))
    as_json = weights.get("application/json", anything)
    as_problem = weights.get("application/problem+json", 0.0)
    if not is_script and weights.get("text/html", 0.0) > max(as_json, as_problem):
        return "html"
    return "problem" if as_problem > 0 and as_problem >= weights.get("application/json", 0.0) else "json"


def _weights(accept: str) -> Iterator[tuple[str, float]]:
    """The media types of an Accept header with their weights; what cannot be read is left out."""
    for part in accept.lower().split(","):
        media, *parameters = (word.strip() for word in part.split(";"))
        quality = next((word[2:] for word in parameters if word.startswith("q=")), "1")
        try:
            yield media, float(quality)
        except ValueError:
            continue


# --- wording ----------------------------------------------------------------------------------------------


def _problem(code: str, status: int, detail: str, *, retryable: bool, **extra: Any) -> dict[str, Any]:
    known = {"gate_reason": None, "retryable": retryable, "resets_at": None, "limit": None, "plan": None}
    head = {
        "type": PROBLEMS_URL + code,
        "title": _TITLES[code],
        "status": status,
        "detail": detail,
        "code": code,
    }
    return {**head, **known, "upgrade": None, **extra}


def _detail(code: str, refusal: Refusal) -> str:
    """A sentence for the user; the engine's own message may hold amounts and advice for developers."""
    limit = refusal.guard_result
    is_spent = limit.current_value >= limit.limit_value or code not in ("period_spend", "session_spend")
    plan = f"{_label(refusal.plan)} plan" if refusal.plan and refusal.plan != "default" else "plan"
    sentence = _DETAILS[code] if is_spent else _TOO_SMALL
    return sentence.format(plan=plan, model=refusal.model or "this model")


def _label(name: str) -> str:
    words = name.replace("_", " ").replace("-", " ").split()
    return " ".join(word[:1].upper() + word[1:] for word in words)


def _amount(value: float, unit: str) -> str:
    """Dollars with at least two and at most six decimals; whole tokens."""
    if unit != "usd":
        return f"{value:.0f}"
    whole, _, rest = f"{Decimal(repr(value)):.6f}".partition(".")
    return f"{whole}.{rest[:2]}{rest[2:].rstrip('0')}"


def _utc(moment: datetime | None) -> str | None:
    """Whole seconds in UTC, rounded up: who comes back then comes after the reset."""
    if moment is None:
        return None
    moment = moment.astimezone(timezone.utc)
    if moment.microsecond:
        moment = moment.replace(microsecond=0) + timedelta(seconds=1)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _retry_headers(problem: Mapping[str, Any], now: datetime | None) -> Iterator[tuple[str, str]]:
    if not problem["retryable"]:
        yield "x-should-retry", "false"
        if problem["resets_at"] is None:
            return
        resets_at = datetime.fromisoformat(problem["resets_at"].replace("Z", "+00:00"))
        wait_s = math.ceil((resets_at - (now or datetime.now(timezone.utc))).total_seconds())
        if 0 < wait_s <= RETRY_AFTER_S_MAX:
            yield "retry-after", str(wait_s)
    else:
        yield "retry-after", str(UNAVAILABLE_RETRY_S if problem["code"] == "unavailable" else 1)


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _answer(
    problem: Mapping[str, Any], media: str, headers: tuple[tuple[str, str], ...], body: bytes
) -> LimitResponse:
    sized = (("content-type", media), ("content-length", str(len(body))), *headers)
    return LimitResponse(problem["status"], sized, body)


def checked_url(url: str) -> str:
    """
    Return *url* if it is ``https://…`` or a path of this app.

    Raises:
        ValueError: Another scheme or origin, or characters that browsers read otherwise than they look.
    """
    is_own = url.startswith("/") and not url.startswith("//")
    if not (is_own or url.startswith("https://")) or "\\" in url or any(c <= " " or c == "\x7f" for c in url):
        raise ValueError(f"upgrade_url={url!r}: must begin with https:// or be a path of this app")
    return url


def _filled(template: str, plan: str) -> str:
    filled = template.replace("{plan}", quote(plan, safe=""))
    if "{" in filled or "}" in filled:
        raise ValueError(f"upgrade_url={template!r}: the only placeholder is {{plan}}")
    return filled
