import mariadb_server
import pytest

from paygent.testing.contract import LedgerContract
from paygent_django.ledger import DjangoLedger


@pytest.fixture
def make_on():
    """Make ledgers on a database, and close them."""
    made = []

    def make(alias, now_us, connection="own"):
        made.append(DjangoLedger(alias, connection=connection, now_us=now_us))
        return made[-1]

    yield make
    for ledger in made:
        ledger.close()


class TestDjangoLedgerOnSqlite(LedgerContract):
    @pytest.fixture
    def make_ledger(self, sqlite_alias, make_on):
        return lambda now_us: make_on(sqlite_alias, now_us)


class TestDjangoLedgerOnPostgres(LedgerContract):
    @pytest.fixture
    def make_ledger(self, postgres_alias, make_on):
        return lambda now_us: make_on(postgres_alias, now_us)


if mariadb_server.PROGRAM:

    class TestDjangoLedgerOnMariadb(LedgerContract):
        @pytest.fixture
        def make_ledger(self, mariadb_alias, make_on):
            return lambda now_us: make_on(mariadb_alias, now_us)
