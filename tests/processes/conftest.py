from __future__ import annotations

import sys
from pathlib import Path

import pytest
from real_servers import postgres_server, postgres_url, redis_server, redis_url

from paygent import Paygent
from paygent.testing.llm_server import LLMServer

__all__ = ["postgres_server", "postgres_url", "redis_server", "redis_url"]

BACKEND = str(Path(__file__).parents[1] / "backend")
if BACKEND not in sys.path:
    sys.path.append(BACKEND)  # the backend as a process of its own


@pytest.fixture
def path(tmp_path):
    return tmp_path / "p.db"


@pytest.fixture(scope="module")
def _llm_server():
    with LLMServer(latency_s=0.01) as server:
        yield server


@pytest.fixture
def llm(_llm_server, monkeypatch):
    """A provider, which the SDK's clients of this process and of its children find by themselves."""
    monkeypatch.setenv("OPENAI_BASE_URL", _llm_server.openai_base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    return _llm_server


@pytest.fixture
def init(path):
    """Paygent on a ledger of its own, shut down at the end."""
    made = []

    def init(**options):
        if "ledger" not in options:
            options.setdefault("db_path", path)
        made.append(Paygent.init(**options))
        return made[-1]

    yield init
    for pg in made:
        pg.shutdown()
