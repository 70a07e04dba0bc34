import pytest
from django_project import harness

harness.set_up()

from django.core.management import call_command  # noqa: E402  # it needs Django's settings
from django.db import connections  # noqa: E402
from django_project.harness import django_unblocked  # noqa: E402

from paygent.testing._contract_machine import WalksContract  # noqa: E402
from paygent_django.ledger import DjangoLedger  # noqa: E402

__all__ = ["django_unblocked"]
ALIAS = "walks"


@pytest.fixture
def alias(tmp_path, django_unblocked):
    """A migrated SQLite file."""
    options = {"init_command": "PRAGMA journal_mode=WAL"}
    given = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "app.db"), "OPTIONS": options}
    connections.settings[ALIAS] = connections.configure_settings({"default": {}, ALIAS: given})[ALIAS]
    call_command("migrate", database=ALIAS, verbosity=0)
    yield ALIAS
    connections[ALIAS].close()
    del connections[ALIAS]
    del connections.settings[ALIAS]


class TestDjangoWalks(WalksContract):
    walks = 100

    @pytest.fixture
    def make_ledger(self, alias):
        made = []

        def make(now_us):
            made.append(DjangoLedger(alias, now_us=now_us))
            return made[-1]

        yield make
        for ledger in made:
            ledger.close()
