from __future__ import annotations

import pytest
from real_servers import redis_server, redis_url
from task_calls import RATES, openai_client

from paygent import Paygent, PlanConfig
from paygent.propagation import _notes, unpatch_threads

__all__ = ["redis_server", "redis_url"]


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch):
    """What is said once per process is said once per test."""
    _notes._told.forget()


@pytest.fixture
def pg(tmp_path):
    """Start a Paygent on a SQLite file, the SDKs patched."""
    instance = Paygent.init(db_path=tmp_path / "p.db")
    instance.configure_plan("default", PlanConfig(cost_rates=RATES))
    yield instance
    instance.shutdown()


@pytest.fixture
def posted(pg):
    """Collect whose calls are posted, in this process."""
    seen = []
    pg.on_usage(lambda event: seen.append(event.user_id))
    return seen


@pytest.fixture
def ask(pg):
    """Return a function that makes one call of a model."""
    client = openai_client()

    def ask(text="Hi"):
        messages = [{"role": "user", "content": text}]
        return client.chat.completions.create(model="gpt-4o", messages=messages).choices[0].message.content

    return ask


@pytest.fixture
def users_in_ledger(pg):
    """Return whose events the ledger has, oldest first."""

    def users():
        pg.flush()
        events = pg._meter.exporter.call(lambda ledger: ledger.events()).result(60)
        return [event.user_id for event in reversed(events)]

    return users


@pytest.fixture
def patched():
    """Undo the patch of the threads after the test."""
    yield
    unpatch_threads()
