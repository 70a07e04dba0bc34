import pytest
from ledger_fleet import FleetCase

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


class TestRedisFleet(FleetCase):
    commit = b"EXEC"
    link = "paygent.ledgers._redis_link"

    @pytest.fixture
    def server(self, durable_redis_server):
        return durable_redis_server

    @pytest.fixture
    def url(self, durable_redis_server):
        return durable_redis_server.url
