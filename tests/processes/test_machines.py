"""
Four machines on one ledger: a cap for exactly a hundred calls holds over the network.

A machine is a process with a home, a journal and a local file of its own: nothing is shared but the ledger.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import pytest
from attempts import ATTEMPTS, CALLS, LONG_NUSD, capped
from backend_server import running
from fleet import HERE, environment

from paygent.ledgers import open_ledger

MACHINES, THREADS = 4, 8


class Machine:
    """One process of ``attempts.py`` in a folder of its own."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        command, pipe = [sys.executable, str(HERE / "attempts.py")], subprocess.PIPE
        self.process = subprocess.Popen(
            command, env=environment(HOME=str(folder)), stdin=pipe, stdout=pipe, text=True
        )

    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self):
        return json.loads(self.process.stdout.readline())


@pytest.fixture
def machines(tmp_path):
    machines = [Machine(tmp_path / f"machine-{number}") for number in range(MACHINES)]
    yield machines
    for machine in machines:
        machine.process.communicate(timeout=60)


def crowd(machines, options):
    """What becomes of 400 attempts of all of them at once."""
    case = {"exact": True, "given": True, "count": ATTEMPTS // MACHINES, "threads": THREADS}
    for machine in machines:
        # Cut off for a moment on a busy host, a machine that fails open would judge alone.
        own = {"db_path": str(machine.folder / "local.db"), "fail_open": False, **options}
        machine.say(json.dumps({**case, "init": own}))
    assert [machine.hear() for machine in machines] == ["ready"] * MACHINES
    for machine in machines:
        machine.say("go")
    return sum((Counter(machine.hear()) for machine in machines), Counter())


def check(seen, spent_nusd):
    """At least 99 of the 100 affordable calls went through, never 101, and each of them is in the books."""
    assert seen.total() == ATTEMPTS
    assert CALLS - 1 <= seen["answered"] <= CALLS
    assert spent_nusd == seen["answered"] * LONG_NUSD


def spent(totals):
    return sum(amount for (scope, _), amount in totals if scope == "total_spend")


@pytest.mark.parametrize("kind", ["postgres", "redis"])
def test_machines_share_a_database(machines, kind, request, tmp_path):
    """Four machines on one PostgreSQL or one Redis are answered as often as the cap covers."""
    url = request.getfixturevalue(f"{kind}_url")
    options = {"ledger": url}
    seen = crowd(machines, options)
    ledger = open_ledger(url)
    totals = ledger.totals("ada").items()
    ledger.close()
    check(seen, spent(totals))


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_machines_share_a_backend(machines, kind, request):
    """Four machines with the key of one backend are answered as often as its plan covers."""
    database = request.getfixturevalue("postgres_url") if kind == "postgres" else None
    with running(database) as server, server.client() as api:
        plan = {"name": "default", **json.loads(capped(exact=True).model_dump_json(exclude_defaults=True))}
        assert api.post("/config/plans", json={"plans": [plan]}).is_success
        seen = crowd(machines, {"api_key": server.key, "base_url": server.url})
        totals = [((scope, window), amount) for scope, window, amount in api.get("/users/ada/totals").json()]
    check(seen, spent(totals))
