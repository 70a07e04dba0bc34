import pytest

from paygent import ModelLimitConfig, Paygent, PlanConfig


@pytest.fixture
def pg():
    """``ada`` has 10 dollars of which a quarter is used, ``ben`` has none, ``eve`` is near her end."""
    pg = Paygent.init(ledger="memory://", auto_instrument=False)
    pg.configure_plan("free", PlanConfig(max_spend_per_period=0.0))
    pg.configure_plan("pro", PlanConfig(max_spend_per_period=10.0))
    pg.configure_plan("gpt", PlanConfig(model_limits={"gpt-4o": ModelLimitConfig(max_tokens_per_period=10)}))
    pg.configure_plan("short", PlanConfig(max_spend_per_session=1.0))
    for user, plan in (("ada", "pro"), ("ben", "free"), ("eve", "pro"), ("gil", "gpt"), ("sue", "short")):
        pg.assign_plan(user, plan)
    pg.record_event("ada", cost=2.5)
    pg.record_event("eve", cost=8.6)
    yield pg
    pg.shutdown()
