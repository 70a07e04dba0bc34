"""The public models: what users configure, and what they read back."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    field_validator,
    model_validator,
)

INFINITY = float("inf")
WATCH = "_paygent_watch"
M = TypeVar("M", bound="PaygentModel")


def _none_is_unlimited(value: Any) -> Any:
    return INFINITY if value is None else value


def _not_negative(value: float) -> float:
    if math.isnan(value):
        raise ValueError("must be a number, not NaN")
    if value < 0:
        raise ValueError("must not be negative")
    return value


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("must be finite")
    return value


def _share(value: float) -> float:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"must be a share between 0 and 1, as in 0.8 for 80 % (got {value:g})")
    return value


def _null_for_infinity(value: float) -> float | None:
    """JSON has no infinity: an unlimited amount is written as null and read back as unlimited."""
    return None if math.isinf(value) else value


# US dollars, zero or more; infinite (null in JSON) means unlimited.
Amount = Annotated[
    float,
    BeforeValidator(_none_is_unlimited),
    AfterValidator(_not_negative),
    PlainSerializer(_null_for_infinity, when_used="json"),
]
# US dollars, always finite.
Cost = Annotated[float, AfterValidator(_finite)]
# US dollars, zero or more, always finite.
Price = Annotated[float, AfterValidator(_not_negative), AfterValidator(_finite)]
Share = Annotated[float, AfterValidator(_not_negative), AfterValidator(_share)]


class PaygentModel(BaseModel):
    """
    Base of the public models: unknown fields are refused, assignments are checked.

    ``from_backend`` reads an answer of another version of the backend: what it does not know is left out.
    A live object (see ``Paygent.get_user_state``) is *watched*: whoever lives behind it is told of each
    assignment. The watch is kept out of the fields, so that it takes no part in equality or in dumps.
    """

    model_config = ConfigDict(
        extra="forbid",
        defer_build=True,
        validate_assignment=True,
        protected_namespaces=(),
        ser_json_inf_nan="strings",
    )

    @classmethod
    def from_backend(cls: type[M], data: dict[str, Any]) -> M:  # noqa: PYI019  # Self needs Python 3.11
        """Build from a backend answer; unknown fields, also nested ones, are ignored."""
        return cls.model_validate(data, extra="ignore")

    def __setattr__(self, name: str, value: Any) -> None:
        """Assign what is valid, or nothing: a refused value leaves the model as it was."""
        before = dict(self.__dict__)
        try:
            super().__setattr__(name, value)
        except ValueError:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise
        watch: Callable[[PaygentModel, str], None] | None = self.__dict__.get(WATCH)
        if watch is not None:
            watch(self, name)


class ModelCostRate(PaygentModel):
    """
    What one model costs, in US dollars.

    Args:
        input, output: Per 1 000 tokens.
        cache_read, cache_write, cache_write_1h, input_audio, output_audio, input_image, output_image: Per
            1 000 tokens of that kind. Where one is left out, the catalogue's ratio to its ``input``
            (``output``) rate applies.
        per_call, per_second, per_1k_chars, per_image: For surfaces whose answer carries no tokens (images,
            speech, audio billed by duration). ``per_image`` applies whatever the quality and size.
    """

    input: Price
    output: Price
    cache_read: Price | None = None
    cache_write: Price | None = None
    cache_write_1h: Price | None = None
    input_audio: Price | None = None
    output_audio: Price | None = None
    input_image: Price | None = None
    output_image: Price | None = None
    per_call: Price | None = None
    per_second: Price | None = None
    per_1k_chars: Price | None = None
    per_image: Price | None = None


class ModelLimitConfig(PaygentModel):
    """A cap on the tokens of one model in a billing period; ``None`` means unlimited."""

    max_tokens_per_period: int | None = Field(default=None, ge=0)


class PlanConfig(PaygentModel):
    """
    A plan: its limits, its prices and its gates.

    Amounts are US dollars; an amount of 0 blocks every call, an infinite one is unlimited. ``soft_gate_at``
    and ``hard_gate_at`` are shares of each limit. ``cost_rates`` are dollars per 1 000 tokens.
    """

    max_spend_per_period: Amount = INFINITY
    max_spend_per_session: Amount = INFINITY
    soft_gate_at: Share = 0.80
    hard_gate_at: Share = 1.00
    model_limits: dict[str, ModelLimitConfig] = {}
    cost_rates: dict[str, ModelCostRate] = {}
    default_cost_rate: ModelCostRate | None = None
    tool_costs: dict[str, Price] = {}
    default_tool_cost: Price = 0.02
    session_timeout_minutes: Annotated[float, Field(gt=0, le=525_600, allow_inf_nan=False)] = 30.0
    pre_call_estimate: bool = False
    pre_call_buffer_tokens: int = Field(default=4096, ge=0, le=100_000_000)
    reservation_safety_factor: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 1.2

    @model_validator(mode="after")
    def _soft_is_not_above_hard(self) -> PlanConfig:
        if self.soft_gate_at > self.hard_gate_at:
            raise ValueError(
                f"soft_gate_at ({self.soft_gate_at:g}) must not be above hard_gate_at ({self.hard_gate_at:g})"
            )
        return self


class GuardResult(PaygentModel):
    """
    The answer of the gate for one call.

    ``gate_reason`` is ``"total_spend"``, ``"session_spend"`` or ``"model_limit:<model>"``. ``current_value``
    and ``limit_value`` are US dollars, or tokens for a model limit; ``usage_pct`` is their ratio (1.0: all).
    """

    model_config = ConfigDict(validate_assignment=False)

    status: Literal["ok", "soft_gate", "hard_gate"] = "ok"
    gate_reason: str | None = None
    usage_pct: float = 0.0
    current_value: float = 0.0
    limit_value: float = 0.0
    message: str | None = None


class UsageEvent(PaygentModel):
    """One metered call. ``id`` is a UUID and the idempotency key; amounts are US dollars."""

    model_config = ConfigDict(validate_assignment=False)

    id: str
    user_id: str
    session_id: str | None = None
    timestamp: datetime
    model: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    tool_calls: list[str] = []
    cost_tokens: float = 0.0
    cost_tools: float = 0.0
    cost_total: float = 0.0
    metadata: dict[str, Any] = {}
    synced: bool = False
    source: Literal["auto", "manual"] = "auto"
    description: str | None = None
    cost_explicit: bool = False
    cost_nusd: int = 0
    estimated: bool = False
    rate_source: str | None = None


class GateEvent(PaygentModel):
    """One decision of the gate other than *ok*, as kept in the audit trail; ``count`` of them in one row."""

    model_config = ConfigDict(validate_assignment=False)

    id: str
    user_id: str
    paygent_user_id: str | None = None
    session_id: str | None = None
    timestamp: datetime
    status: Literal["soft_gate", "hard_gate"]
    gate_reason: str | None = None
    usage_pct: float = 0.0
    current_value: float = 0.0
    limit_value: float = 0.0
    model: str | None = None
    blocked: bool = False
    message: str | None = None
    metadata: dict[str, Any] = {}
    count: int = 1


class CurrentUsage(PaygentModel):
    """What a user has used in the running period and session, and what is reserved for calls in flight."""

    period_cost: Cost = 0.0
    session_cost: Cost = 0.0
    session_id: str | None = None
    session_started_at: datetime | None = None
    period_tokens_total: int = 0
    period_tokens_by_model: dict[str, int] = {}
    period_cost_by_model: dict[str, float] = {}
    reserved_cost: float = 0.0
    reserved_tokens_by_model: dict[str, int] = {}


class ModelUsage(PaygentModel):
    """Tokens and cost (US dollars) of one model in the billing period; a limit of ``None`` is unlimited."""

    model: str
    tokens_used: int = 0
    tokens_limit: int | None = None
    cost: float = 0.0


class BillingPeriod(PaygentModel):
    """The window a user's plan is billed for; both ends carry a time zone, ``end`` is exclusive."""

    start: datetime
    end: datetime

    @field_validator("start", "end")
    @classmethod
    def _is_aware(cls, value: datetime) -> datetime:
        if value.tzinfo is None or value.utcoffset() is None:
            raise ValueError("must carry a time zone, as in datetime.now(timezone.utc)")
        return value

    @model_validator(mode="after")
    def _ends_after_start(self) -> BillingPeriod:
        if self.end <= self.start:
            raise ValueError("end must be after start")
        return self


class UserState(PaygentModel):
    """Everything known of one user: plan, usage and billing period."""

    user_id: str
    paygent_user_id: str | None = None
    plan: str
    sdk_enabled: bool = True
    plan_config: PlanConfig
    current_usage: CurrentUsage
    billing_period: BillingPeriod | None = None
    last_refreshed: datetime | None = None


UserSession = UserState  # deprecated alias, kept for code written against earlier releases


class BudgetRemaining(PaygentModel):
    """What is left of each limit; infinite and ``None`` mean that there is no limit."""

    model_config = ConfigDict(validate_assignment=False)

    period_spend_remaining: Amount = INFINITY
    session_spend_remaining: Amount = INFINITY
    model_tokens_remaining: dict[str, int | None] = {}
    most_constrained: Literal["period_spend", "session_spend", "model_tokens", "unbounded"] = "unbounded"


class MaxTokensAdvice(PaygentModel):
    """The largest ``max_tokens`` that passes no limit; 0 and ``"blocked"`` mean: do not make the call."""

    model_config = ConfigDict(validate_assignment=False)

    max_tokens: int = 0
    binding_limit: Literal["period_spend", "session_spend", "model_tokens", "unbounded", "blocked"] = (
        "unbounded"
    )
    period_spend_remaining: Amount = INFINITY
    session_spend_remaining: Amount = INFINITY
    model_tokens_remaining: int | None = None
