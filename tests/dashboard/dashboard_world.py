"""A small company after a month: plans, users of all kinds, 30 days of calls, and some that were refused."""

import random
import time
import uuid

from paygent import BillingPeriod, ModelCostRate, ModelLimitConfig, PlanConfig
from paygent.core.events import Event
from paygent.core.windows import billing_period, from_us
from paygent.insight import DAY_US
from paygent.ledger import GateRow, LeaseRequest

ODD = "org/42?x=#é 💥"
SCRIPT = "<script>alert(1)</script>"
USD = 10**9
PLANS = {
    "free": PlanConfig(
        max_spend_per_period=2.0,
        max_spend_per_session=0.5,
        pre_call_estimate=True,
        model_limits={"gpt-4o-mini": ModelLimitConfig(max_tokens_per_period=500_000)},
        cost_rates={"gpt-4o-mini": ModelCostRate(input=0.00015, output=0.0006)},
    ),
    "pro": PlanConfig(
        max_spend_per_period=20.0,
        max_spend_per_session=5.0,
        soft_gate_at=0.8,
        model_limits={
            "gpt-4o": ModelLimitConfig(max_tokens_per_period=2_000_000),
            "gpt-4o-mini": ModelLimitConfig(),
            "claude-sonnet-4-5": ModelLimitConfig(max_tokens_per_period=1_000_000),
        },
        cost_rates={
            "gpt-4o": ModelCostRate(input=0.0025, output=0.01),
            "claude-sonnet-4-5": ModelCostRate(input=0.003, output=0.015),
        },
        default_cost_rate=ModelCostRate(input=0.001, output=0.004),
        tool_costs={"web_search": 0.01, "code_interpreter": 0.03},
    ),
    "business": PlanConfig(max_spend_per_period=250.0, hard_gate_at=0.95),
    "default": PlanConfig(max_spend_per_period=0.5),
}
# Whom, on which plan, and how much of its period he has spent.
USERS = {
    "ada@northwind.example": ("business", 0.42),
    "grace@hopper.example": ("business", 0.23),
    "linus@kernel.example": ("pro", 0.93),
    "margaret@apollo.example": ("pro", 1.02),
    ODD: ("pro", 0.61),
    "katherine@orbit.example": ("pro", 0.34),
    "dennis@bell.example": ("pro", 0.12),
    SCRIPT: ("free", 0.55),
    "barbara@clu.example": ("free", 0.83),
    "tony@quick.example": ("free", 1.0),
    "مستخدم": ("free", 0.27),
    "guest-" + "7f3a" * 16: ("free", 0.02),
    "edsger@path.example": (None, 0.4),
}
_MODELS = (
    ("gpt-4o", 0.45),
    ("claude-sonnet-4-5", 0.35),
    ("gpt-4o-mini", 0.12),
    ("text-embedding-3-small", 0.08),
)
_FEATURES = ("chat", "summary", "search")


def fill(pg):
    """Write the month through the ledger's own port."""
    for name, config in PLANS.items():
        pg.configure_plan(name, config)
    dice = random.Random(4)
    now_us = time.time_ns() // 1000
    # a period of its own for each paying user, so that what was spent lately is in it
    start_us = now_us // DAY_US * DAY_US - 24 * DAY_US
    period = BillingPeriod(start=from_us(start_us), end=from_us(start_us + 30 * DAY_US))
    events, gates = [], []
    for user_id, (plan, share) in USERS.items():
        if plan is not None:
            pg.assign_plan(user_id, plan, period)
        window = (start_us, start_us + 30 * DAY_US) if plan is not None else None
        spend = round(PLANS[plan or "default"].max_spend_per_period * share * USD)
        events += _events(dice, user_id, spend, window, now_us)
        if share > 0.8:
            gates += _gates(dice, user_id, plan, share, now_us)
    pg._meter.exporter.call(lambda ledger: _write(ledger, events, gates)).result(30)


def _write(ledger, events, gates):
    ledger.settle(events)
    ledger.record_gates(gates)
    for user_id in USERS:
        ledger.put_account(user_id, {})
    for user_id, need in (("linus@kernel.example", 150_000_000), (ODD, 40_000_000)):
        ledger.lease([LeaseRequest(user_id, "worker-1", 1, begin_session=True, need={"total_spend": need})])


def _events(dice, user_id, spend, window, now_us):
    """Sixty calls; those of the running period cost *spend* together."""
    period = billing_period(window, now_us)
    moments = sorted(now_us - dice.randrange(29 * DAY_US) for _ in range(60))
    weights = [dice.uniform(0.2, 1.8) for _ in moments]
    inside = [weight for at, weight in zip(moments, weights, strict=True) if at >= period.start_us]
    left = spend
    for at, weight in zip(moments, weights, strict=True):
        part = round(spend * weight / sum(inside or weights))
        if at >= period.start_us:
            part = left if at == moments[-1] else min(part, left)
            left -= part
        model = dice.choices([name for name, _ in _MODELS], [share for _, share in _MODELS])[0]
        yield event(dice, user_id, at, billing_period(window, at), model, part)


def event(dice, user_id, at_us, period, model, cost_nusd):
    tokens = max(20, cost_nusd // 25_000)
    return Event(
        str(uuid.UUID(int=dice.getrandbits(128))), user_id, at_us, period.key, f"s{at_us}:x", "x", "openai",
        "chat", model, model, model, tokens * 3 // 4, tokens // 4, 0, 0, 0, cost_nusd, 0, (),
        {"feature": dice.choice(_FEATURES)}, "auto", int(dice.random() < 0.06), 0, "plan", None,
    )  # fmt: skip


def _gates(dice, user_id, plan, share, now_us):
    limit = PLANS[plan].max_spend_per_period
    for _ in range(dice.randrange(3, 9)):
        blocked = share >= 1 and dice.random() < 0.75
        reason = dice.choice(["total_spend", "total_spend", "session_spend", "model_limit:gpt-4o"])
        value, cap = (
            (limit * (1.0 if blocked else 0.85), limit) if reason != "model_limit:gpt-4o" else (2.0e6, 2.0e6)
        )
        yield GateRow(
            str(uuid.UUID(int=dice.getrandbits(128))), user_id, now_us - dice.randrange(12 * DAY_US), "x",
            "hard_gate" if blocked else "soft_gate", reason, value / cap, value, cap, "gpt-4o", int(blocked),
            "limit reached", None, dice.choice([1, 1, 2, 7]),
        )  # fmt: skip
