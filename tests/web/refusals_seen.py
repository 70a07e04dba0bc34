"""Refusals as the engine makes them, one of each code."""

from datetime import datetime, timezone

from paygent.core.errors import PaygentLimitExceeded, PaygentUnavailable, Refusal
from paygent.core.models import GuardResult

MAY = datetime(2026, 5, 1, tzinfo=timezone.utc)
_REASONS = {
    "session_spend": "session_spend",
    "model_tokens": "model_limit:gpt-4o",
    "model_not_in_plan": "model_limit:gpt-4o",
    "unpriced": "model_limit:gpt-4o",
    "no_user": None,
    "disabled": None,
}


def refused(code="period_spend", *, used=5.0, limit=5.0, **fields):
    result = GuardResult(
        status="hard_gate",
        gate_reason=_REASONS.get(code, "total_spend"),
        current_value=used,
        limit_value=limit,
        message="for developers",
    )
    given = {"plan": "free", "model": "gpt-4o", "limit": limit, "used": used, "resets_at": MAY, **fields}
    return PaygentLimitExceeded(result, Refusal(code, result, user_id="user_123", **given))


EACH = {
    "period_spend": refused(),
    "session_spend": refused("session_spend", used=1.25, limit=1.25),
    "model_tokens": refused("model_tokens", unit="tokens", used=50_000.0, limit=50_000.0),
    "model_not_in_plan": refused(
        "model_not_in_plan", unit="tokens", used=0.0, limit=0.0, resets_at=None, model="o9"
    ),
    "no_plan": refused("no_plan", plan=None, used=0.0, limit=0.0, resets_at=None),
    "no_user": refused("no_user", plan=None, used=0.0, limit=0.0, resets_at=None, model=None),
    "busy": refused("busy", used=4.5, retryable=True),
    "disabled": refused("disabled", used=0.0, limit=0.0, resets_at=None),
    "unavailable": PaygentUnavailable("the ledger cannot be asked"),
}
