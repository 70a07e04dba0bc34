from __future__ import annotations

import pytest

from paygent import ModelCostRate, Paygent, PlanConfig


def pytest_ignore_collect(collection_path, config):
    """Leave the real CrewAI out, which brings 140 packages, unless everything is asked for."""
    return True if "crewai_real" in collection_path.name and not config.getoption("--every-extra") else None


@pytest.fixture
def pg():
    """Start a Paygent on a ledger in memory, the SDKs patched, with a plan that prices every model."""
    instance = Paygent.init(ledger="memory://")
    # One cent per 1 000 tokens in, three per 1 000 tokens out.
    rate = ModelCostRate(input=0.01, output=0.03)
    instance.configure_plan("default", PlanConfig(cost_rates={"gpt-4o": rate}, default_cost_rate=rate))
    yield instance
    instance.shutdown()


@pytest.fixture
def posted(pg):
    """Collect the events that Paygent posts."""
    seen = []
    pg.on_usage(seen.append)
    return seen


@pytest.fixture
def held(pg):
    """Return what is held for a user, in nano-dollars."""

    def held(user_id):
        return pg._meter.wallets[user_id].period_purse.held

    return held


@pytest.fixture
def ledger_events(pg):
    """Return the events of a user as the ledger keeps them."""

    def events(user_id):
        pg.flush()
        return pg._meter.exporter.call(lambda ledger: ledger.events(user_id)).result(60)

    return events
