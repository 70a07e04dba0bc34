"""Calls above a limit's soft mark: each of them says so, whichever limit it is."""

import pytest
from engine_values import call, plan

MARKS = [
    ("total_spend", {"calls": 10}),
    ("session_spend", {"calls": 1000, "max_spend_per_session": 0.1}),
    ("model_limit:m", {"calls": 1000, "model_limits": {"m": {"max_tokens_per_period": 100}}}),
]


@pytest.mark.parametrize("scope, config", MARKS)
def test_every_call_above_the_mark_of_any_limit_says_so(init, scope, config):
    """The post that reaches the mark is told of, and then each call that is admitted above it."""
    pg = init(ledger="memory://")
    pg.configure_plan("default", plan(soft_gate_at=0.5, **config))
    heard = []
    pg.on_soft_gate(lambda result: heard.append((result.gate_reason, round(result.usage_pct, 6))))
    for _ in range(7):
        call(pg)
    assert heard == [(scope, 0.5), (scope, 0.5), (scope, 0.6)]
