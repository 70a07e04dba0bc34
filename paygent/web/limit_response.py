"""
What a refused call looks like over HTTP: status, headers and body, the same under every framework.

The plugins pass in the error and the request's headers, and send what comes back. Amounts are decimal text,
moments are ISO 8601 in UTC; ``code`` is the stable key for programs, ``detail`` the sentence for people.

Sources: RFC 9457 (problem details), RFC 6585 and 9110 (429, 503, ``Retry-After``), the SSE part of the HTML
standard.
"""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, NamedTuple

from paygent.core.errors import PaygentLimitExceeded, PaygentUnavailable, Refusal
from paygent.web import formats, wording
from paygent.web.formats import FORMATS, ErrorFormat
from paygent.web.limit_page import content_policy, page
from paygent.web.negotiation import negotiated
from paygent.web.upgrade import UpgradeUrl, checked_upgrade_url, checked_url, filled
from paygent.web.wording import Offer

log = logging.getLogger("paygent")

RETRY_AFTER_S_MAX = 3600  # SDK clients obey a month-long Retry-After by sleeping
UNAVAILABLE_RETRY_S = 5
CHAIN_MAX = 100
KINDS_MAX = 20  # of errors that are told
DETAIL_LENGTH_MAX = 200

Declined = PaygentLimitExceeded | PaygentUnavailable


class LimitResponse(NamedTuple):
    """A complete answer; header names are lower-case."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


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
        error_format: Whose error bodies to send: RFC 9457's, or those of the OpenAI or Anthropic API.

    Raises:
        ValueError: *upgrade_url* leads elsewhere or holds an unknown placeholder; another *status_code* or
            *error_format*.
    """

    upgrade_url: UpgradeUrl = None
    expose_amounts: bool = True
    status_code: int = 429
    offers: Mapping[str, Offer] = field(default_factory=dict)
    error_format: ErrorFormat = "problem"
    _told: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.status_code not in (429, 402):
            raise ValueError(f"status_code={self.status_code!r}: must be 429 or 402")
        if self.error_format not in FORMATS:
            raise ValueError(f"error_format={self.error_format!r}: must be one of {', '.join(FORMATS)}")
        checked_upgrade_url(self.upgrade_url)

    def response(
        self, error: Declined, headers: Mapping[str, str], *, now: datetime | None = None
    ) -> LimitResponse:
        """Answer a request with these *headers* (lower-case names), in the form its client reads best."""
        problem = self.problem(error)
        kind = negotiated(headers) if self.error_format == "problem" else "json"
        common = (("cache-control", "no-store"), ("vary", "Accept"), *_retry_headers(problem, now))
        if kind == "html":
            policy = ("content-security-policy", content_policy())
            return _answer(problem, "text/html; charset=utf-8", (*common, policy), page(problem).encode())
        media = "application/problem+json" if kind == "problem" else "application/json"
        return _answer(problem, media, common, formats.body(problem, self.error_format))

    def event(self, error: Declined) -> bytes:
        """Return the last event of a server-sent stream that had already begun."""
        return formats.event(self.problem(error), self.error_format)

    def problem(self, error: Declined) -> dict[str, Any]:
        """Return the problem object of *error*; every key is always present."""
        if isinstance(error, PaygentUnavailable):
            return wording.problem("unavailable", 503, wording.DETAILS["unavailable"], retryable=True)
        refusal = error.refusal
        code = refusal.code if refusal.code in wording.TITLES else "model_not_in_plan"
        return wording.problem(
            code,
            {"no_user": 401, "busy": 429}.get(code, self.status_code),
            wording.detail(code, refusal),
            gate_reason=refusal.guard_result.gate_reason,
            retryable=refusal.retryable,
            resets_at=wording.utc(refusal.resets_at),
            limit=self._limit(code, refusal),
            plan={"name": refusal.plan, "label": wording.label(refusal.plan)} if refusal.plan else None,
            upgrade=None if code in wording.NO_UPGRADE else self._upgrade(code, refusal),
        )

    def _limit(self, code: str, refusal: Refusal) -> dict[str, Any] | None:
        if code in ("no_plan", "no_user", "disabled"):
            return None
        shown: dict[str, Any] = {"unit": refusal.unit}
        if self.expose_amounts and math.isfinite(refusal.limit):
            left = max(0.0, refusal.limit - refusal.used)
            for name, value in (("limit", refusal.limit), ("used", refusal.used), ("remaining", left)):
                shown[name] = wording.amount(value, refusal.unit)
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
            return checked_url(filled(self.upgrade_url, refusal.plan or "none"))
        try:
            url = self.upgrade_url(refusal) if self.upgrade_url is not None else None
            return checked_url(url) if url else None
        except Exception as error:  # noqa: BLE001  # the app's own, and what it returned
            self._tell(error)
            return None

    def _tell(self, error: Exception) -> None:
        """
        Log in one line what is wrong with *upgrade_url*, once for each kind of error.

        Users may be able to bring it about with each request, and the traceback of a request is long.
        """
        kind = type(error).__name__
        if kind not in self._told and len(self._told) < KINDS_MAX:
            self._told.add(kind)
            last = traceback.extract_tb(error.__traceback__)[-1]
            place, said = f"{last.filename}, line {last.lineno}", str(error)[:DETAIL_LENGTH_MAX]
            message = "upgrade_url failed: the refusal is sent without a link, and this is not said again"
            log.error("%s (%s: %s; %s)", message, kind, said, place)


# --- finding the refusal ----------------------------------------------------------------------------------


def find_refusal(error: BaseException) -> Declined | None:
    """
    Return the refusal that *error* is, or was made from: in its causes or its group.

    Frameworks wrap what passes them: Starlette raises a ``RuntimeError`` from it once a response has started,
    task groups raise exception groups. What fails while a refusal is being handled is an error of its own.
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
        if current.__cause__ is not None:
            waiting.append(current.__cause__)


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


def _answer(
    problem: Mapping[str, Any], media: str, headers: tuple[tuple[str, str], ...], body: bytes
) -> LimitResponse:
    sized = (("content-type", media), ("content-length", str(len(body))), *headers)
    return LimitResponse(problem["status"], sized, body)
