"""
Whatever happens to a fleet, its limits hold but for named causes, and every answered call counts once.

``PAYGENT_SIMULATION_STEPS`` is how many steps are made in all, ``PAYGENT_SIMULATION_SEED`` the first seed.
"""

import hashlib
import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from sim_replay import STEPS, run

STEPS_IN_ALL = int(os.environ.get("PAYGENT_SIMULATION_STEPS", "200000"))
FIRST_SEED = int(os.environ.get("PAYGENT_SIMULATION_SEED", "0"))
SQLITE_SHARE = 0.05
SEEDS_PER_TEST = 15

# What a run of a few thousand steps must have met, or it would show nothing.
MISHAPS = {
    "abandon", "admitted degraded", "admitted forced", "admitted lease", "busy", "cancel", "estimate",
    "fail", "finish", "gave up", "held without a lease (degraded)", "held without a lease (lease)",
    "killed", "late", "lost_after", "lost_before", "lowered limit", "nested", "nested and waiting",
    "one call over", "posted without a lease (degraded)", "recorded", "refused busy",
    "refused period_spend", "refused session_spend", "retired", "settled late", "slow", "spent", "twice",
    "unavailable", "under-estimate",
}  # fmt: skip


def seeds(share):
    """The first seeds of the tests that together make *share* of all steps."""
    count = math.ceil(STEPS_IN_ALL * share / STEPS)
    return range(FIRST_SEED, FIRST_SEED + count, SEEDS_PER_TEST)


@pytest.mark.parametrize("first", seeds(1.0 - SQLITE_SHARE))
def test_a_fleet_on_a_ledger_in_memory(first):
    """Processes that share a ledger keep to the limits through faults, deaths, pauses and wrong clocks."""
    for seed in range(first, first + SEEDS_PER_TEST):
        assert run(seed).steps >= STEPS


@pytest.mark.parametrize("first", seeds(SQLITE_SHARE))
def test_a_fleet_on_a_ledger_in_sqlite(first):
    """So do processes that share a SQLite file."""
    for seed in range(first, first + SEEDS_PER_TEST):
        assert run(seed, "sqlite").steps >= STEPS


def test_the_simulator_meets_every_mishap():
    """A few dozen seeds are enough to meet every kind of fault, decision and cause of debt."""
    seen = Counter()
    for seed in range(40):
        seen += run(seed).books.seen
    assert {name for name in MISHAPS if not seen[name]} == set()


def test_a_seed_walks_the_same_way_twice():
    """A seed repeats itself step by step."""
    walks = []
    for _ in range(2):
        lines = []
        run(11, trace=lines.append)
        walks.append(lines)
    assert walks[0] == walks[1]
    assert len(walks[0]) > STEPS / 2


def test_a_seed_walks_the_same_way_in_another_process():
    """What a seed does depends neither on the hashes of a process nor on its ledger's addresses."""
    digests = set()
    for hash_seed in ("1", "2"):
        command = [sys.executable, str(Path(__file__).with_name("sim_replay.py")), "11"]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(command, env=environment, capture_output=True, check=True)
        digests.add(hashlib.sha256(done.stdout).hexdigest())
    assert len(digests) == 1
