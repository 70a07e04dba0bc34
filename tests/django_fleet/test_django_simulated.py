"""The simulated fleet on the Django ledger: limits hold but for named causes, every event counts once."""

import contextlib
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.core.management import call_command
from django.db import connections
from sim_run import simulate

from paygent_django.ledger import DjangoLedger
from paygent_django.models import Lease

ALIAS = "simulated"
STEPS = 600  # of one seed, before it comes to rest
SEEDS = int(os.environ.get("PAYGENT_DJANGO_SIMULATION_SEEDS", "5"))


class SimulatedLedger(DjangoLedger):
    """The ledger, whose leases the simulator looks at."""

    @contextlib.contextmanager
    def _transaction(self):
        yield SimpleNamespace(leases=stored_leases)


def stored_leases(user):
    """The rows of a user's leases, with amounts by bucket."""
    rows = Lease.objects.using(ALIAS).filter(user__external_user_id=user)
    return [
        SimpleNamespace(
            lease_id=row.lease_id,
            expires_us=row.expires_us,
            amounts={(scope, window): amount for scope, window, amount in row.amounts},
        )
        for row in rows
    ]


@pytest.fixture
def folder(django_unblocked):
    """A folder with a migrated SQLite file, known to Django."""
    in_memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # much of the time goes into small files
    with tempfile.TemporaryDirectory(prefix="paygent-simulation-", dir=in_memory) as name:
        options = {"init_command": "PRAGMA journal_mode=WAL"}
        given = {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{name}/app.db", "OPTIONS": options}
        connections.settings[ALIAS] = connections.configure_settings({"default": {}, ALIAS: given})[ALIAS]
        call_command("migrate", database=ALIAS, verbosity=0)
        yield Path(name)
        connections[ALIAS].close()
        del connections[ALIAS]
        del connections.settings[ALIAS]


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_fleet_on_the_django_ledger(folder, seed):
    """Processes on the project's database keep to the limits through faults, deaths and wrong clocks."""
    fleet = simulate(seed, lambda now_us: SimulatedLedger(ALIAS, now_us=now_us), folder / "journals", STEPS)
    assert fleet.steps >= STEPS
