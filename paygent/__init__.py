"""Runtime cost control for apps that call LLMs: meter each user, check his plan before the call leaves."""

from paygent.client import Paygent
from paygent.context import paygent_context, paygent_exempt, paygent_track
from paygent.core.errors import (
    PaygentAuthInvalid,
    PaygentBackendUnreachable,
    PaygentLimitExceeded,
    PaygentUnavailable,
)
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
from paygent.instrumentation import ProviderRegistry
from paygent.propagation import propagate

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
    "Paygent",
    "PaygentAuthInvalid",
    "PaygentBackendUnreachable",
    "PaygentLimitExceeded",
    "PaygentUnavailable",
    "PlanConfig",
    "ProviderRegistry",
    "UsageEvent",
    "UserSession",
    "UserState",
    "paygent_context",
    "paygent_exempt",
    "paygent_track",
    "propagate",
]
