"""Pre-flight answers: what would the gate say, what is left, how many tokens may a call ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from paygent.core.balance import UNLIMITED
from paygent.core.models import BudgetRemaining, GuardResult, MaxTokensAdvice, ModelUsage
from paygent.core.plan import MODEL_LIMIT, NUSD_PER_USD
from paygent.meter import refusals
from paygent.meter.live import usage_of

if TYPE_CHECKING:
    from paygent.ledger import Bucket
    from paygent.meter.tariff import Habits
    from paygent.meter.wallet import Purse, Wallet

INFINITY = float("inf")
Binding = Literal["period_spend", "session_spend", "model_tokens", "unbounded", "blocked"]
_NAMES: tuple[Literal["period_spend", "session_spend", "model_tokens"], ...] = (
    "period_spend",
    "session_spend",
    "model_tokens",
)


def guard(wallet: Wallet, model: str | None) -> GuardResult:
    """
    What the gate would say to the next call: the most restrictive limit wins.

    The wallet's lock is held by the caller; nothing is asked, written or called back.
    """
    tariff = wallet.tariff
    if tariff is None or not wallet.account.sdk_enabled:  # type: ignore[union-attr]  # known with a tariff
        return GuardResult()
    worst: Purse | None = None
    worst_rank = -1.0
    for purse in _purses(wallet, model):
        if purse is not None and purse.hard < UNLIMITED:
            used = purse.posted + purse.unsettled
            rank = used / purse.hard if purse.hard else INFINITY
            if rank > worst_rank:
                worst, worst_rank = purse, rank
    if model is not None and not tariff.terms(model).listed:
        return _unlisted(model, tariff.plan.name)
    if worst is None:
        return GuardResult()
    used = worst.posted + worst.unsettled
    if used >= worst.hard:
        return refusals.guard_result(worst, "hard_gate")
    if used >= worst.soft:
        return refusals.guard_result(worst, "soft_gate")
    scale = 1 if worst.scope.startswith(MODEL_LIMIT) else NUSD_PER_USD
    return GuardResult(usage_pct=used / worst.cap, current_value=used / scale, limit_value=worst.cap / scale)


def _unlisted(model: str, plan: str) -> GuardResult:
    message = f"{model!r} is not part of plan {plan!r}: add it to model_limits or cost_rates, or set default_cost_rate."
    return GuardResult(status="hard_gate", gate_reason=MODEL_LIMIT + model, usage_pct=1.0, message=message)


def _purses(wallet: Wallet, model: str | None) -> tuple[Purse | None, Purse | None, Purse | None]:
    tokens = None
    if model is not None and wallet.tariff is not None and wallet.period is not None:
        tokens = wallet.model_purses(wallet.tariff.terms(model).model)[0]
    return wallet.period_purse, wallet.session_purse, tokens


def budget(wallet: Wallet) -> BudgetRemaining:
    """What is left of each limit (the wallet's lock is held)."""
    assert wallet.tariff is not None
    left: dict[str, float] = {}
    shares: list[tuple[float, Literal["period_spend", "session_spend", "model_tokens"]]] = []
    for name, purse in zip(_NAMES, (wallet.period_purse, wallet.session_purse), strict=False):
        limit = wallet.tariff.plan.period if name == "period_spend" else wallet.tariff.plan.session
        if limit.hard < UNLIMITED:
            rest = max(0, limit.hard - (purse.used if purse is not None else 0))
            left[name] = rest / NUSD_PER_USD
            shares.append((rest / limit.hard if limit.hard else 0.0, name))
    tokens: dict[str, int | None] = {}
    for model in wallet.tariff.plan.config.model_limits:
        cap = wallet.tariff.plan.models.get(model)
        tokens[model] = None
        if cap is not None:
            rest = max(0, cap.hard - wallet.model_purses(model)[0].used)
            tokens[model] = rest
            shares.append((rest / cap.hard if cap.hard else 0.0, "model_tokens"))
    return BudgetRemaining(
        period_spend_remaining=left.get("period_spend", INFINITY),
        session_spend_remaining=left.get("session_spend", INFINITY),
        model_tokens_remaining=tokens,
        most_constrained=min(shares)[1] if shares else "unbounded",
    )


def max_tokens(
    wallet: Wallet, model: str, provider: str | None, input_tokens: int, hard_cap: int, habits: Habits
) -> MaxTokensAdvice:
    """
    The largest ``max_tokens`` whose reservation fits what is left on every limit (the wallet's lock is held).

    It inverts the sizing of a call, holds and safety factor included, so that a call made with it is
    admitted and passes no limit.
    """
    tariff = wallet.tariff
    assert tariff is not None and wallet.account is not None
    left = budget(wallet)
    terms = tariff.terms(model, provider)
    model_left = left.model_tokens_remaining.get(terms.model)
    most: list[tuple[int, Binding]] = [(hard_cap, "unbounded")]
    if wallet.account.sdk_enabled:
        period, session, tokens = _purses(wallet, model)
        for name, purse in zip(_NAMES, (period, session), strict=False):
            room = _room(purse, wallet, name)
            if room is not None:
                rates = terms.rates
                if rates is None or rates.input_ausd is None:
                    most.append((0, name))
                    continue
                spare = (room - 1) * 10**12 // max(
                    1, tariff.plan.safety_milli
                ) - input_tokens * rates.input_ausd
                per_token = rates.output_ausd or 0
                most.append((spare // per_token if per_token else (hard_cap if spare >= 0 else 0), name))
        room = _room(tokens, wallet, "model_tokens")
        if room is not None:
            most.append((room * 1000 // max(1, tariff.plan.safety_milli) - input_tokens, "model_tokens"))
        if not terms.listed or guard(wallet, model).status == "hard_gate":
            most.append((0, "blocked"))
    tokens_max, binding = min(most, key=lambda item: item[0])
    return MaxTokensAdvice(
        max_tokens=max(0, tokens_max),
        binding_limit=binding if tokens_max >= 1 else "blocked",
        period_spend_remaining=left.period_spend_remaining,
        session_spend_remaining=left.session_spend_remaining,
        model_tokens_remaining=model_left,
    )


def _room(purse: Purse | None, wallet: Wallet, name: str) -> int | None:
    """What can still be reserved on a limit, or ``None`` where there is none."""
    if purse is None:
        plan = wallet.tariff.plan if wallet.tariff is not None else None
        limit = plan.session if plan is not None and name == "session_spend" else None
        return limit.hard if limit is not None and limit.hard < UNLIMITED else None
    return purse.hard - purse.used - purse.held - purse.others if purse.hard < UNLIMITED else None


def model_usage(wallet: Wallet, totals: dict[Bucket, int] | None) -> list[ModelUsage]:
    """One row per model with usage or a limit (the wallet's lock is held)."""
    assert wallet.tariff is not None
    usage = usage_of(wallet, totals)
    config = wallet.tariff.plan.config
    models = sorted({*usage.period_tokens_by_model, *usage.period_cost_by_model, *config.model_limits})
    return [
        ModelUsage(
            model=model,
            tokens_used=usage.period_tokens_by_model.get(model, 0),
            tokens_limit=config.model_limits[model].max_tokens_per_period
            if model in config.model_limits
            else None,
            cost=usage.period_cost_by_model.get(model, 0.0),
        )
        for model in models
    ]
