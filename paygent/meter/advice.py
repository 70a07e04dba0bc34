"""Pre-flight answers: what would the gate say, what is left, how many tokens may a call ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from paygent.core.balance import UNLIMITED
from paygent.core.models import BudgetRemaining, GuardResult, MaxTokensAdvice, ModelUsage
from paygent.core.plan import NUSD_PER_USD, SESSION_SPEND
from paygent.core.usage import Usage
from paygent.core.windows import Window
from paygent.meter import refusals
from paygent.meter.live import usage_of
from paygent.meter.purse import Purse, model_scope

if TYPE_CHECKING:
    from paygent.core.pricing import Rates
    from paygent.meter.wallet import Wallet

INFINITY = float("inf")
Limit = Literal["period_spend", "session_spend", "model_tokens"]
Binding = Literal["period_spend", "session_spend", "model_tokens", "unbounded", "blocked"]
_AUSD_MILLI_PER_NUSD = 10**12
_NO_SESSION = Window("", 0, 0)


def guard(wallet: Wallet, model: str | None, now_us: int, *, blocks_unpriced: bool) -> GuardResult:
    """
    What the gate would say to the next call: the most restrictive limit wins.

    The wallet's lock is held by the caller; nothing is asked, written or called back.
    """
    tariff, account = wallet.tariff, wallet.account
    if tariff is None or account is None or not account.sdk_enabled:
        return GuardResult()
    if tariff.blocks_all:
        return refusals.no_plan()
    if model is not None:
        terms = tariff.terms(model)
        if not terms.listed:
            return refusals.unlisted(model, tariff.plan.name)
        if terms.rates is None and blocks_unpriced and _caps_spend(wallet):
            return refusals.unpriced(model, tariff.plan.name)
    worst: Purse | None = None
    worst_share = -1.0
    for purse in _purses(wallet, model, now_us):
        if purse is not None and purse.hard < UNLIMITED:
            share = (purse.posted + purse.unsettled) / purse.hard if purse.hard else INFINITY
            if share > worst_share:
                worst, worst_share = purse, share
    if worst is None:
        return GuardResult()
    if worst_share >= 1.0:
        return refusals.guard_result(worst, "hard_gate")
    soft = worst.posted + worst.unsettled >= worst.soft
    return refusals.guard_result(worst, "soft_gate" if soft else "ok")


def _caps_spend(wallet: Wallet) -> bool:
    assert wallet.tariff is not None
    plan = wallet.tariff.plan
    return min(plan.period.hard, plan.session.hard) < UNLIMITED


def _purses(
    wallet: Wallet, model: str | None, now_us: int
) -> tuple[Purse | None, Purse | None, Purse | None]:
    """What a call would be held on: period, session and the model's tokens."""
    tariff, session = wallet.tariff, wallet.session
    assert tariff is not None
    tokens = None
    if model is not None and tariff.plan.models and wallet.period is not None:
        tokens = wallet.purse_of(tariff.terms(model).scope)
    if session is not None and now_us < session.window.end_us:
        return wallet.period_purse, wallet.session_purse, tokens
    if tariff.plan.session.hard >= UNLIMITED:
        return wallet.period_purse, None, tokens
    return wallet.period_purse, Purse(SESSION_SPEND, _NO_SESSION, tariff.plan.session), tokens


def budget(wallet: Wallet, now_us: int) -> BudgetRemaining:
    """What is left of each limit (the wallet's lock is held)."""
    assert wallet.tariff is not None
    config, limits = wallet.tariff.plan.config, wallet.tariff.plan.models
    period, session, _ = _purses(wallet, None, now_us)
    shares: list[tuple[float, Limit]] = []
    tokens: dict[str, int | None] = dict.fromkeys(config.model_limits)
    for model in limits:
        tokens[model] = int(_left(wallet.purse_of(model_scope(model)), "model_tokens", shares))
    period_left = _left(period, "period_spend", shares) / NUSD_PER_USD
    session_left = _left(session, "session_spend", shares) / NUSD_PER_USD
    return BudgetRemaining(
        period_spend_remaining=period_left,
        session_spend_remaining=session_left,
        model_tokens_remaining=tokens,
        most_constrained=min(shares)[1] if shares else "unbounded",
    )


def _left(purse: Purse | None, limit: Limit, shares: list[tuple[float, Limit]]) -> float:
    """What is left of one limit, infinite where there is none; its share of the limit joins *shares*."""
    if purse is None or purse.hard >= UNLIMITED:
        return INFINITY
    left = max(0, purse.hard - purse.used)
    shares.append((left / purse.hard if purse.hard else 0.0, limit))
    return left


def max_tokens(
    wallet: Wallet, model: str, input_tokens: int, hard_cap: int, now_us: int, *, blocks_unpriced: bool
) -> MaxTokensAdvice:
    """
    The largest ``max_tokens`` whose reservation fits what is left on every limit (the wallet's lock is held).

    It inverts the sizing of a call, holds and safety factor included, so that a call made with it is
    admitted and passes no limit.
    """
    tariff = wallet.tariff
    assert tariff is not None
    assert wallet.account is not None
    left = budget(wallet, now_us)
    most: list[tuple[int, Binding]] = [(hard_cap, "unbounded")]
    if wallet.account.sdk_enabled:
        terms = tariff.terms(model)
        period, session, tokens = _purses(wallet, model, now_us)
        # A factor below 1 reserves less than a call may cost; what it costs must fit all the same.
        safety_milli = max(1000, tariff.plan.safety_milli)
        for purse, name in ((period, "period_spend"), (session, "session_spend")):
            room = _room(purse)
            if room is not None:
                spare_ausd = (room - 1) * _AUSD_MILLI_PER_NUSD // safety_milli
                most.append((_affordable(spare_ausd, input_tokens, hard_cap, terms.rates), name))  # type: ignore[arg-type]  # of the literals
        room = _room(tokens)
        if room is not None:
            most.append((room * 1000 // safety_milli - input_tokens, "model_tokens"))
        if guard(wallet, model, now_us, blocks_unpriced=blocks_unpriced).status == "hard_gate":
            most.append((0, "blocked"))
    tokens_max, binding = min(most, key=lambda item: item[0])
    return MaxTokensAdvice(
        max_tokens=max(0, tokens_max),
        binding_limit=binding if tokens_max >= 1 else "blocked",
        period_spend_remaining=left.period_spend_remaining,
        session_spend_remaining=left.session_spend_remaining,
        model_tokens_remaining=left.model_tokens_remaining.get(tariff.terms(model).model),
    )


def _affordable(spare_ausd: int, input_tokens: int, hard_cap: int, rates: Rates | None) -> int:
    """How many output tokens *spare_ausd* pays for, the input paid first; below 0: not even that."""
    if rates is None or rates.input_ausd is None:
        return 0
    # The gate sizes by the ordinary rates, the bill may be at those of a long input: the dearer ones decide.
    billed = rates.in_force(Usage(input_tokens=input_tokens))
    spare_ausd -= input_tokens * max(rates.input_ausd, billed.input_ausd or 0)
    per_token = max(rates.output_ausd or 0, billed.output_ausd or 0)
    if spare_ausd < 0:
        return -1
    return spare_ausd // per_token if per_token else hard_cap


def _room(purse: Purse | None) -> int | None:
    """What can still be reserved on a limit, or ``None`` where there is none."""
    if purse is None or purse.hard >= UNLIMITED:
        return None
    return purse.hard - purse.used - purse.held - purse.others


def model_usage(wallet: Wallet, now_us: int) -> list[ModelUsage]:
    """One row per model with usage or a limit (the wallet's lock is held)."""
    assert wallet.tariff is not None
    usage = usage_of(wallet, now_us)
    limits = wallet.tariff.plan.config.model_limits
    models = sorted({*usage.period_tokens_by_model, *usage.period_cost_by_model, *limits})
    return [
        ModelUsage(
            model=model,
            tokens_used=usage.period_tokens_by_model.get(model, 0),
            tokens_limit=limits[model].max_tokens_per_period if model in limits else None,
            cost=usage.period_cost_by_model.get(model, 0.0),
        )
        for model in models
    ]
