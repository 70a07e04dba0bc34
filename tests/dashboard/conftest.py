import dashboard_world
import pytest
from real_servers import postgres_server, postgres_url, redis_server, redis_url

from paygent import Paygent

__all__ = ["postgres_server", "postgres_url", "redis_server", "redis_url"]


@pytest.fixture
def pg(tmp_path):
    """An empty Paygent on a SQLite file."""
    pg = Paygent.init(db_path=tmp_path / "p.db", auto_instrument=False)
    yield pg
    pg.shutdown()


@pytest.fixture
def company(pg):
    """A month of a small company."""
    dashboard_world.fill(pg)
    return pg
