import pytest
from django_project import harness

harness.set_up()

from django.core.management import call_command  # noqa: E402  # it needs Django's settings
from django.db import connections  # noqa: E402
from django_project.harness import django_unblocked  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from hypothesis.stateful import rule, run_state_machine_as_test  # noqa: E402

from paygent.testing._contract_machine import LedgerWalk  # noqa: E402
from paygent.testing._contract_values import LedgerCase  # noqa: E402
from paygent_django.ledger import DjangoLedger  # noqa: E402

__all__ = ["django_unblocked"]
ALIAS = "walks"
WALKS = settings(
    max_examples=40,
    stateful_step_count=40,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


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


class DjangoWalk(LedgerWalk):
    """
    The walk of the contract, but for one thing: here a change of plan is a subscription that begins somewhen.

    A clock that is set back to before that moment is also back before the change; it is not set back so far.
    """

    changed_us = 0

    def _put_account(self, user, changes):
        self.changed_us = self.clock.now_us()
        super()._put_account(user, changes)

    def _send(self, requests):
        if any(request.plan for request in requests):
            self.changed_us = self.clock.now_us()
        return super()._send(requests)

    @rule(seconds=st.sampled_from([-0.5, -20.0, -1900.0]))
    def set_back(self, seconds):
        if self.clock.now_us() + seconds * 1_000_000 >= self.changed_us:
            super().set_back(seconds)


class TestDjangoWalks(LedgerCase):
    @pytest.fixture
    def make_ledger(self, alias):
        made = []

        def make(now_us):
            made.append(DjangoLedger(alias, now_us=now_us))
            return made[-1]

        yield make
        for ledger in made:
            ledger.close()

    def test_random_walks_agree_with_the_model(self, ledger, clock):
        """Whatever processes ask for, in whatever order, each reply is the one that the model gives."""

        class Walk(DjangoWalk):
            def __init__(self):
                super().__init__(ledger, clock)

        run_state_machine_as_test(Walk, settings=WALKS)
