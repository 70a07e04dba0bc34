import pytest
from ledger_fleet import FleetCase

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


class TestPostgresFleet(FleetCase):
    commit = b"COMMIT"
    link = "paygent.ledgers._postgres_link"

    @pytest.fixture
    def server(self, postgres_server):
        return postgres_server

    @pytest.fixture
    def url(self, postgres_url):
        return postgres_url
