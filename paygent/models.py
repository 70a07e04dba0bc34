"""The public models, at the address users of the field expect them."""

from paygent.core.models import (
    BillingPeriod,
    BudgetRemaining,
    CurrentUsage,
    GateEvent,
    GuardResult,
    MaxTokensAdvice,
    ModelCostRate,
    ModelLimitConfig,
    ModelUsage,
    PlanConfig,
    UsageEvent,
    UserSession,
    UserState,
)

__all__ = [
    "BillingPeriod",
    "BudgetRemaining",
    "CurrentUsage",
    "GateEvent",
    "GuardResult",
    "MaxTokensAdvice",
    "ModelCostRate",
    "ModelLimitConfig",
    "ModelUsage",
    "PlanConfig",
    "UsageEvent",
    "UserSession",
    "UserState",
]
