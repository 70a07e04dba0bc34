"""What a refusal says: to the program, and to the person who reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paygent.core.balance import Denied
from paygent.core.errors import Refusal
from paygent.core.models import GuardResult
from paygent.core.plan import MODEL_LIMIT, NUSD_PER_USD, SESSION_SPEND, TOTAL_SPEND
from paygent.core.windows import from_us

if TYPE_CHECKING:
    from paygent.meter.call import Blocked, Call
    from paygent.meter.wallet import Purse, Wallet

CODES = {TOTAL_SPEND: "period_spend", SESSION_SPEND: "session_spend"}
_WINDOWS = {TOTAL_SPEND: "this billing period", SESSION_SPEND: "this session"}


def values(purse: Purse) -> tuple[float, float, float]:
    """Used, cap and their ratio, in the unit of the public models (US dollars, or tokens)."""
    scale = 1 if purse.scope.startswith(MODEL_LIMIT) else NUSD_PER_USD
    used, cap = purse.used / scale, purse.cap / scale
    return used, cap, (purse.used / purse.cap if purse.cap else 1.0)


def guard_result(purse: Purse, status: str, message: str | None = None) -> GuardResult:
    """The public answer of the gate for the limit that *purse* stands for."""
    used, cap, ratio = values(purse)
    return GuardResult(
        status=status,  # type: ignore[arg-type]  # one of the three literals
        gate_reason=purse.scope,
        usage_pct=ratio,
        current_value=used,
        limit_value=cap,
        message=message or describe(purse, status),
    )


def describe(purse: Purse, status: str) -> str:
    """One sentence on how far a limit is used."""
    used, cap, ratio = values(purse)
    verb = "Limit reached" if status == "hard_gate" else "Approaching the limit"
    return f"{verb}: {_amount(purse, used)} of {_amount(purse, cap)} used{_where(purse)} ({ratio:.0%})."


def _amount(purse: Purse, value: float) -> str:
    if purse.scope.startswith(MODEL_LIMIT):
        return f"{value:,.0f} tokens"
    return f"${value:.2f}" if value >= 1 or value == 0 else f"${value:.6f}".rstrip("0")


def _where(purse: Purse) -> str:
    if purse.scope.startswith(MODEL_LIMIT):
        return f" of {purse.scope[len(MODEL_LIMIT) :]} this billing period"
    return " " + _WINDOWS[purse.scope]


def of_denied(call: Call, wallet: Wallet, denied: Denied) -> Refusal:
    """A limit without room for the call: spent, or held by other calls in flight."""
    purse = find_purse(call, wallet, denied.scope)
    if denied.busy:
        message = f"Busy: other calls in flight hold what is left of the limit{_where(purse)}; try again in a moment."
    elif purse.used < purse.hard:
        left = (purse.hard - purse.used) / (1 if purse.scope.startswith(MODEL_LIMIT) else NUSD_PER_USD)
        message = (
            f"Limit reached: this call may need more than the {_amount(purse, left)} left{_where(purse)}."
        )
    else:
        message = describe(purse, "hard_gate")
    used, cap, _ = values(purse)
    is_model = purse.scope.startswith(MODEL_LIMIT)
    return Refusal(
        code="busy" if denied.busy else CODES.get(purse.scope, "model_tokens"),
        guard_result=guard_result(purse, "hard_gate", message),
        user_id=call.user_id,
        plan=wallet.tariff.plan.name if wallet.tariff else None,
        model=call.model,
        unit="tokens" if is_model else "usd",
        limit=cap,
        used=used,
        retryable=denied.busy,
        resets_at=from_us(purse.window.end_us) if purse.window.end_us else None,
    )


def of_blocked(call: Call, wallet: Wallet, blocked: Blocked) -> Refusal:
    """No plan covers the model at all, whatever is left of any limit."""
    plan = wallet.tariff.plan.name if wallet.tariff else None
    model = call.model or "unknown"
    if blocked.reason == "no_plan":
        message = "This user has no plan, and Paygent.init(no_plan='block') refuses calls without one."
        result = GuardResult(status="hard_gate", gate_reason=TOTAL_SPEND, usage_pct=1.0, message=message)
        return Refusal("no_plan", result, user_id=call.user_id, plan=plan, model=call.model)
    if blocked.reason == "unpriced":
        message = (
            f"No price is known for {model!r}, so plan {plan!r} cannot cap it: add it to cost_rates, or set "
            "default_cost_rate."
        )
    else:
        message = (
            f"{model!r} is not part of plan {plan!r}: add it to model_limits or cost_rates, or set "
            "default_cost_rate."
        )
    result = GuardResult(
        status="hard_gate", gate_reason=MODEL_LIMIT + model, usage_pct=1.0, limit_value=0.0, message=message
    )
    return Refusal(
        "model_not_in_plan", result, user_id=call.user_id, plan=plan, model=call.model, unit="tokens"
    )


def find_purse(call: Call, wallet: Wallet, scope: str) -> Purse:
    """The purse of *scope* in the windows that the call falls in."""
    assert wallet.period is not None
    if scope == SESSION_SPEND:
        session = wallet.session if call.session_id is None else (wallet.sessions or {}).get(call.session_id)
        if session is not None:
            return wallet.purse(scope, session.window)
    return wallet.purse(scope, wallet.period)
