"""A plan compiled once to integer limits on scopes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import NamedTuple

from paygent.core.balance import UNLIMITED
from paygent.core.models import PlanConfig

NUSD_PER_USD = 10**9

# Enough digits for every product below, whatever context the caller's thread works in.
_EXACT = Context(prec=1000)

TOTAL_SPEND = "total_spend"
SESSION_SPEND = "session_spend"
MODEL_LIMIT = "model_limit:"
MODEL_COST = "model_cost:"  # counted for the reports, never limited


class Limit(NamedTuple):
    """
    One cap in its unit (nano-dollars or tokens): what the plan says, and the two marks on it.

    ``hard = floor(cap x hard_gate_at)``; at or above it the gate is closed. ``soft`` likewise.
    """

    cap: int = UNLIMITED
    soft: int = UNLIMITED
    hard: int = UNLIMITED


NO_LIMIT = Limit()


@dataclass(frozen=True)
class CompiledPlan:
    """A :class:`PlanConfig` as integers. ``version`` is the ledger's; equal content has an equal version."""

    name: str
    version: int
    config: PlanConfig
    period: Limit
    session: Limit
    models: dict[str, Limit]
    session_timeout_s: float
    exact: bool
    safety_milli: int

    @property
    def lists_models(self) -> bool:
        """Whether the plan names its models: one that it names nowhere is then not part of it."""
        return bool(self.config.model_limits or self.config.cost_rates)

    @property
    def unlimited(self) -> bool:
        """Whether no scope at all has a limit."""
        return self.period is NO_LIMIT and self.session is NO_LIMIT and not self.models

    def limit_of(self, scope: str) -> Limit:
        """The limit on *scope*; scopes that the plan does not limit are unlimited."""
        if scope == TOTAL_SPEND:
            return self.period
        if scope == SESSION_SPEND:
            return self.session
        return (
            self.models.get(scope[len(MODEL_LIMIT) :], NO_LIMIT)
            if scope.startswith(MODEL_LIMIT)
            else NO_LIMIT
        )


def compile_plan(name: str, config: PlanConfig, version: int = 0) -> CompiledPlan:
    """Compile *config*; money becomes nano-dollars, exactly as it is written in decimal."""

    def spend(cap_usd: float) -> Limit:
        if math.isinf(cap_usd):
            return NO_LIMIT
        return _limit(_EXACT.multiply(Decimal(str(cap_usd)), NUSD_PER_USD), config)

    models = {
        model: _limit(Decimal(limit.max_tokens_per_period), config)
        for model, limit in config.model_limits.items()
        if limit.max_tokens_per_period is not None
    }
    return CompiledPlan(
        name=name,
        version=version,
        config=config,
        period=spend(config.max_spend_per_period),
        session=spend(config.max_spend_per_session),
        models=models,
        session_timeout_s=config.session_timeout_minutes * 60,
        exact=config.pre_call_estimate,
        safety_milli=round(config.reservation_safety_factor * 1000),
    )


def _limit(cap: Decimal, config: PlanConfig) -> Limit:
    def mark(share: float) -> int:
        return min(int(_EXACT.multiply(cap, Decimal(str(share)))), UNLIMITED)

    return Limit(cap=min(int(cap), UNLIMITED), soft=mark(config.soft_gate_at), hard=mark(config.hard_gate_at))
