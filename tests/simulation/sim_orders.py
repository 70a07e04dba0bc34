"""What is drawn for a simulated fleet: plans, and what callers are going to do."""

from dataclasses import dataclass, field

from paygent import PlanConfig


@dataclass
class Order:
    """What one caller is going to do, drawn before it begins."""

    user: str
    model: str
    session: str | None
    plan: str | None
    most: int | None  # output tokens; None: the call names no limit
    used: int
    end: str  # finish, fail, cancel, estimate, abandon, record
    streams: bool
    reports_only: bool
    patience: int  # how often it waits between begin and end
    key: str | None
    inner: list = field(default_factory=list)  # calls made before this one ends


def draw_plan(rng):
    """One token costs a thousandth of a dollar in all of them."""
    cap = rng.choice([60, 200, 500, 500, 2000, 0])
    tokens = rng.choice([None, None, 150, 1000])
    return PlanConfig(
        max_spend_per_period=cap / 1000 + 50e-9,
        max_spend_per_session=rng.choice([None, None, 0.1, 0.4]),
        session_timeout_minutes=rng.choice([0.5, 2, 30]),
        model_limits={} if tokens is None else {"m": {"max_tokens_per_period": tokens}},
        cost_rates={name: {"input": 1.0, "output": 1.0} for name in ("m", "n")},
        hard_gate_at=rng.choice([1.0, 1.0, 0.9]),
        pre_call_estimate=rng.random() < 0.5,
        pre_call_buffer_tokens=20,
        reservation_safety_factor=rng.choice([1.0, 1.0, 1.2]),
    )


def draw_order(rng, users, depth, *, fair):
    """A call of one of *users*, with calls inside to *depth*; *fair*: what it needs is known beforehand."""
    most = rng.choice([1, 5, 10, 10, 30, 60]) - 1
    end = rng.choice(["finish"] * 6 + ["fail", "estimate", "cancel", "abandon", "record"])
    if end == "record" and (fair or depth < 2):
        end = "finish"
    used = rng.randint(0, most + 1)
    names_no_limit = False
    if not fair and rng.random() < 0.3:
        used = rng.randint(0, 90)
        names_no_limit = rng.random() < 0.5
    if end == "estimate" and fair:
        used = max(0, most - 1)
    inner = []
    if depth and rng.random() < 0.15:
        inner = [draw_order(rng, users, depth - 1, fair=fair) for _ in range(rng.randint(1, 2))]
    order = Order(
        user=rng.choice(users),
        model=rng.choice(["m", "m", "n"]),
        session=rng.choice([None, None, None, "s1"]),
        plan=rng.choice([None] * 30 + ["default", "pro"]),
        most=None if names_no_limit else most,
        used=used,
        end=end,
        streams=end == "abandon" or rng.random() < 0.4,
        reports_only=not fair and rng.random() < 0.02,
        patience=rng.choice([0, 1, 1, 2, 2, 40]),
        key=f"k{rng.randrange(20)}" if rng.random() < 0.3 else None,
        inner=inner,
    )
    for call in inner:
        call.user = order.user if rng.random() < 0.9 else call.user
    if order.key is not None:
        order.used = 7
    return order
