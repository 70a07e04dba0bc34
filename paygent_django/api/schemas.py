"""The shapes of requests and answers, for reading the ones and for the API's own description of both."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from paygent.core.bounds import ID_LENGTH_MAX
from paygent.core.models import PlanConfig
from paygent.core.plan import NUSD_PER_USD
from paygent_django.services.plans import NAME_LENGTH_MAX, PRICE_MAX_NANO

_GATES = ("soft_gate_at", "hard_gate_at")


class Shape(BaseModel):
    """Base of what this API reads and writes; what it does not know is left out."""

    model_config = ConfigDict(extra="ignore")


class Problem(Shape):
    """An error, as RFC 9457 has it."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = None
    errors: list[dict[str, str]] = []


# --- plans ------------------------------------------------------------------------------------------------


class PlanIn(PlanConfig):
    """
    A plan: its limits and rates, and what users read of it.

    ``price`` is in ``currency`` per ``interval``; ``rank`` orders the plans from the smallest up.
    """

    name: str = Field(min_length=1, max_length=NAME_LENGTH_MAX)
    label: str = Field(default="", max_length=200)
    price: float | None = Field(default=None, ge=0, le=PRICE_MAX_NANO // NUSD_PER_USD, allow_inf_nan=False)
    currency: str = Field(default="USD", pattern="^[A-Z]{3}$")
    interval: Literal["month", "year", "week", "day", "once"] = "month"
    rank: int = Field(default=0, ge=-(1 << 31) + 1, lt=1 << 31)


class PlansIn(Shape):
    """Plans, made or changed by name. The gates above them hold for each that has none of its own."""

    soft_gate_at: float | None = None
    hard_gate_at: float | None = None
    plans: list[PlanIn] = Field(max_length=500)

    @model_validator(mode="before")
    @classmethod
    def _share_gates(cls, said: Any) -> Any:
        if not isinstance(said, dict) or not isinstance(said.get("plans"), list):
            return said
        shared = {name: said[name] for name in _GATES if said.get(name) is not None}
        plans = [{**shared, **plan} if isinstance(plan, dict) else plan for plan in said["plans"]]
        return {**said, "plans": plans}


class PlanOut(Shape):
    """A plan as it stands; a limit that is absent is none."""

    model_config = ConfigDict(extra="allow")

    id: str
    name: str


class PlansOut(Shape):
    """Plans."""

    plans: list[PlanOut]


# --- users ------------------------------------------------------------------------------------------------


class UserIn(Shape):
    """A user of the app; ``external_user_id`` is the app's own name for him."""

    external_user_id: str = Field(min_length=1, max_length=ID_LENGTH_MAX)
    name: str | None = Field(default=None, max_length=300)
    email: str | None = Field(default=None, max_length=320)
    metadata: dict[str, Any] | None = None


class UserOut(Shape):
    """A user."""

    external_user_id: str
    paygent_user_id: str
    name: str
    email: str
    metadata: dict[str, Any]
    sdk_enabled: bool
    created_at: datetime


class UsersOut(Shape):
    """A page of users."""

    users: list[UserOut]
    next_cursor: str | None


class SubscriptionIn(Shape):
    """A plan and its billing period; the period is required where the plan caps what a period may cost."""

    plan_id: str
    period_start: datetime | None = None
    period_end: datetime | None = None
    reference: str | None = Field(default=None, max_length=200)

    @field_validator("period_start", "period_end")
    @classmethod
    def _is_storable(cls, moment: datetime | None) -> datetime | None:
        if moment is not None and not 1970 <= moment.year < 2200:
            raise ValueError("must lie between the years 1970 and 2200")
        return moment


class SubscriptionOut(Shape):
    """A subscription; it binds from ``starts_at`` until another one begins."""

    user_id: str
    plan_id: str
    plan: str
    period_start: datetime | None
    period_end: datetime | None
    starts_at: datetime
    ends_at: datetime | None


class CurrentUsage(Shape):
    """What was used in the billing period; costs in US dollars."""

    period_cost: float
    period_tokens_total: int
    period_tokens_by_model: dict[str, int]
    period_cost_by_model: dict[str, float]


class Period(Shape):
    """A billing period; its end is exclusive."""

    start: datetime
    end: datetime


class SessionOut(Shape):
    """All that a client needs to know of a user before his first call."""

    user_id: str
    paygent_user_id: str
    plan: str
    plan_config: dict[str, Any]
    plan_version: str
    current_usage: CurrentUsage
    billing_period: Period | None
    sdk_enabled: bool
    server_time: datetime


class UsageOut(Shape):
    """What was used; costs in US dollars."""

    user_id: str
    period: str
    total_cost: float
    total_tokens: int
    tokens_by_model: dict[str, int]
    cost_by_model: dict[str, float]
    tool_calls_count: int


# --- events -----------------------------------------------------------------------------------------------


class EventIn(Shape):
    """One metered call. ``id`` is made by the client before it is sent, and counts once for ever."""

    model_config = ConfigDict(extra="allow")

    id: str = Field(json_schema_extra={"format": "uuid"})
    user_id: str = Field(min_length=1, max_length=ID_LENGTH_MAX)
    timestamp: datetime
    session_id: str | None = None
    model: str | None = None
    input_tokens: int = Field(default=0, ge=0)
    output_tokens: int = Field(default=0, ge=0)
    total_tokens: int = Field(default=0, ge=0)
    tool_calls: list[str] = []
    cost_tokens: float | None = Field(default=None, ge=0)
    cost_tools: float | None = Field(default=None, ge=0)
    cost_total: float | None = Field(default=None, ge=0)
    cost_nusd: int | None = Field(default=None, ge=0)
    metadata: dict[str, Any] | None = None
    source: str = "auto"
    description: str | None = None
    cost_explicit: bool = False


class Rejected(Shape):
    """One item that was not taken: its id, the field that is wrong, and why."""

    id: str | None
    field: str
    detail: str


class BatchOut(Shape):
    """What became of a batch."""

    accepted: int
    duplicates: int
    rejected: list[Rejected]


class EventsOut(Shape):
    """A page of events, newest first."""

    events: list[dict[str, Any]]
    next_cursor: str | None


class GateIn(Shape):
    """One decision of the gate."""

    model_config = ConfigDict(extra="allow")

    id: str = Field(json_schema_extra={"format": "uuid"})
    user_id: str = Field(min_length=1, max_length=ID_LENGTH_MAX)
    timestamp: datetime
    status: Literal["soft_gate", "hard_gate"]
    gate_reason: str | None = None
    session_id: str | None = None
    usage_pct: float = 0.0
    current_value: float = 0.0
    limit_value: float = 0.0
    model: str | None = None
    blocked: bool = False
    message: str | None = None
    metadata: dict[str, Any] | None = None


class GatesOut(Shape):
    """A page of decisions, newest first."""

    user_id: str | None = None
    events: list[dict[str, Any]]
    next_cursor: str | None


class LeaseIn(Shape):
    """
    One absolute operation on the lease of one process for one user.

    ``keep`` and ``held`` are lists of [scope, window, amount]; ``need`` and ``want`` are amounts by scope, in
    nano-dollars or tokens.
    """

    model_config = ConfigDict(extra="allow")

    user_id: str = Field(min_length=1, max_length=ID_LENGTH_MAX)
    lease_id: str = Field(min_length=1, max_length=100)
    seq: int = Field(ge=0)
    session_id: str | None = None
    begin_session: bool = False
    plan: str | None = None
    plan_version: str | None = None
    keep: list[list[Any]] = []
    held: list[list[Any]] = []
    need: dict[str, int] = {}
    want: dict[str, int] = {}
    events: list[EventIn] = []


# --- webhooks ---------------------------------------------------------------------------------------------


class WebhookIn(Shape):
    """An address to tell of events; no ``events`` means all of them."""

    url: str = Field(min_length=1, max_length=2000)
    events: list[str] = []
    description: str = Field(default="", max_length=200)
    is_enabled: bool = True


class WebhookPatch(Shape):
    """What is given changes; the rest stays."""

    url: str | None = Field(default=None, min_length=1, max_length=2000)
    events: list[str] | None = None
    description: str | None = Field(default=None, max_length=200)
    is_enabled: bool | None = None


class WebhookOut(Shape):
    """An address; its ``secret`` is said once, when it is made."""

    id: str
    url: str
    events: list[str]
    description: str
    is_enabled: bool
    created_at: datetime
    secret: str | None = None


class WebhooksOut(Shape):
    """All addresses of a project."""

    webhooks: list[WebhookOut]


class DeliveryOut(Shape):
    """What an address was told, and how it went."""

    id: str
    event: str
    attempts: int
    created_at: datetime
    delivered_at: datetime | None
    next_attempt_at: datetime | None
    response_status: int | None
    last_error: str


class DeliveriesOut(Shape):
    """A page of deliveries, newest first."""

    deliveries: list[DeliveryOut]
    next_cursor: str | None
