"""What the tests of the engine are written with."""

import uuid

from paygent import PlanConfig
from paygent.core.events import Event

# One call of PRICED costs exactly a cent: ten input tokens at $1 per 1 000, and none of output.
CENT = 10_000_000
EXACT = {"model": "m", "provider": "openai", "estimated_max_tokens": 9}  # and one token of input
ANSWER = {"object": "chat.completion", "choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 0}}


def plan(calls, **config):
    """A plan that covers exactly *calls* calls of a cent."""
    given = {
        # a call needs its estimate and one nano-dollar, which the rounding may cost
        "max_spend_per_period": calls / 100 + 1e-9,
        "cost_rates": {"m": {"input": 1.0, "output": 1.0}},
        "pre_call_estimate": True,
        "reservation_safety_factor": 1.0,
        **config,
    }
    return PlanConfig(**given)


def call(pg, user="ada", **changes):
    """One metered call of a cent, whose estimate is exact."""
    return pg.wrap(lambda: ANSWER, **{"user_id": user, **EXACT, **changes})


def event(user="ada", cost_nusd=CENT, **changes):
    """An event in windows of its own making."""
    row = Event(
        str(uuid.uuid4()), user, 1_767_225_600_000_000, "p1", "s1", "chat", "openai", "chat", "m", "m", "m",
        10, 0, 0, 0, 0, cost_nusd, 0, (), None, "auto", 0, 0, "plan", None,
    )  # fmt: skip
    return row._replace(**changes)
