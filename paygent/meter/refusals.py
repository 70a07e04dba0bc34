"""What a refusal says: to the program, and to the person who reads it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from paygent.core.balance import Denied
from paygent.core.errors import Refusal
from paygent.core.models import GuardResult
from paygent.core.plan import MODEL_LIMIT, NUSD_PER_USD, SESSION_SPEND, TOTAL_SPEND
from paygent.core.windows import from_us

if TYPE_CHECKING:
    from paygent.meter.call import Call
    from paygent.meter.purse import Purse
    from paygent.meter.sizing import Blocked
    from paygent.meter.wallet import Wallet

Status = Literal["ok", "soft_gate", "hard_gate"]
CODES = {TOTAL_SPEND: "period_spend", SESSION_SPEND: "session_spend"}
_WINDOWS = {TOTAL_SPEND: "this billing period", SESSION_SPEND: "this session"}
_moment = lru_cache(maxsize=1024)(from_us)


def values(purse: Purse) -> tuple[float, float, float]:
    """Used, cap and their ratio, in the unit of the public models (US dollars, or tokens)."""
    used, cap = purse.posted + purse.unsettled, purse.cap
    ratio = used / cap if cap else 1.0
    if purse.scope.startswith(MODEL_LIMIT):
        return used, cap, ratio
    return used / NUSD_PER_USD, cap / NUSD_PER_USD, ratio


def guard_result(purse: Purse, status: Status, message: str | None = None) -> GuardResult:
    """The public answer of the gate for the limit that *purse* stands for; *ok* needs no message."""
    used, cap, ratio = values(purse)
    if status == "ok":
        return GuardResult(usage_pct=ratio, current_value=used, limit_value=cap)
    return GuardResult(
        status=status,
        gate_reason=purse.scope,
        usage_pct=ratio,
        current_value=used,
        limit_value=cap,
        message=message or _sentence(purse.scope, status, used, cap, ratio),
    )


@lru_cache(maxsize=1024)  # a client that hammers a closed gate hears the same sentence again and again
def _sentence(scope: str, status: Status, used: float, cap: float, ratio: float) -> str:
    """One sentence on how far a limit is used."""
    verb = "Limit reached" if status == "hard_gate" else "Approaching the limit"
    return f"{verb}: {_amount(scope, used)} of {_amount(scope, cap)} used{_where(scope)} ({ratio:.0%})."


def _amount(scope: str, value: float) -> str:
    if scope.startswith(MODEL_LIMIT):
        return f"{value:,.0f} tokens"
    return f"${value:.2f}" if value >= 1 or value == 0 else f"${value:.9f}".rstrip("0").rstrip(".")


def _where(scope: str) -> str:
    if scope.startswith(MODEL_LIMIT):
        return f" of {scope[len(MODEL_LIMIT) :]} this billing period"
    return " " + _WINDOWS[scope]


def of_denied(call: Call, wallet: Wallet, denied: Denied) -> Refusal:
    """A limit without room for the call: spent, or held by other calls in flight."""
    scope = denied.scope
    purse = find_purse(call, wallet, scope)
    message = None
    if denied.busy:
        message = f"Busy: other calls in flight hold what is left{_where(scope)}; try again in a moment."
    elif purse.used < purse.hard:
        left = (purse.hard - purse.used) / (1 if scope.startswith(MODEL_LIMIT) else NUSD_PER_USD)
        message = (
            f"Limit reached: this call may need more than the {_amount(scope, left)} left{_where(scope)}."
        )
    result = guard_result(purse, "hard_gate", message)
    return Refusal(
        code="busy" if denied.busy else CODES.get(scope, "model_tokens"),
        guard_result=result,
        user_id=call.user_id,
        plan=wallet.tariff.plan.name if wallet.tariff else None,
        model=call.model,
        unit="tokens" if scope.startswith(MODEL_LIMIT) else "usd",
        limit=result.limit_value,
        used=result.current_value,
        retryable=denied.busy,
        resets_at=_moment(purse.window.end_us) if purse.window.end_us else None,
    )


def of_blocked(call: Call, wallet: Wallet, blocked: Blocked) -> Refusal:
    """No plan covers the call at all, whatever is left of any limit."""
    plan = wallet.tariff.plan.name if wallet.tariff else None
    if blocked.reason == "no_plan":
        return Refusal("no_plan", no_plan(), user_id=call.user_id, plan=plan, model=call.model)
    model = call.model or "unknown"
    if blocked.reason == "unpriced":
        code, result = "unpriced", unpriced(model, plan)
    else:
        code, result = "model_not_in_plan", unlisted(model, plan)
    return Refusal(code, result, user_id=call.user_id, plan=plan, model=call.model, unit="tokens")


def no_plan() -> GuardResult:
    """The user has no plan, and ``init(no_plan="block")``."""
    message = "This user has no plan, and Paygent.init(no_plan='block') refuses calls without one."
    return GuardResult(status="hard_gate", gate_reason=TOTAL_SPEND, usage_pct=1.0, message=message)


def unpriced(model: str, plan: str | None) -> GuardResult:
    """Nobody knows what *model* costs, under a finite spend cap."""
    message = f"No price is known for {model!r}, so plan {plan!r} cannot cap it: add it to cost_rates, or set"
    return _not_covered(model, message + " default_cost_rate.")


def unlisted(model: str, plan: str | None) -> GuardResult:
    """A plan that lists models does not list *model*."""
    message = f"{model!r} is not part of plan {plan!r}: add it to model_limits or cost_rates, or set"
    return _not_covered(model, message + " default_cost_rate.")


def _not_covered(model: str, message: str) -> GuardResult:
    return GuardResult(status="hard_gate", gate_reason=MODEL_LIMIT + model, usage_pct=1.0, message=message)


def find_purse(call: Call, wallet: Wallet, scope: str) -> Purse:
    """The purse of *scope* in the windows that the call falls in."""
    assert wallet.period is not None
    if scope == SESSION_SPEND:
        session = wallet.session if call.session_id is None else (wallet.sessions or {}).get(call.session_id)
        return wallet.look(scope, wallet.period if session is None else session.window)
    return wallet.look(scope, wallet.period)
