"""
Run one seed of the simulator and print its steps, or many seeds one after the other.

``python tests/simulation/sim_replay.py 12`` walks as the test suite did, step by step, and ends with what is
wrong. ``--to 99`` runs the seeds up to that one without printing steps.
"""

import argparse
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from sim_books import BrokenInvariantError
from sim_run import simulate

from paygent.ledgers.memory import MemoryLedger
from paygent.ledgers.sqlite import SqliteLedger

STEPS = 600  # of one seed, before it comes to rest


@contextmanager
def world(ledger):
    """An empty store: a function that opens it, and a folder for journals."""
    in_memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # much of the time goes into small files
    with tempfile.TemporaryDirectory(prefix="paygent-simulation-", dir=in_memory) as folder:
        path = Path(folder) / "p.db"
        make = MemoryLedger if ledger == "memory" else lambda now_us: SqliteLedger(path, now_us)
        yield make, Path(folder) / "journals"


def run(seed, ledger="memory", steps=STEPS, trace=None):
    """
    Run one seed; returns the fleet at rest.

    Raises:
        BrokenInvariantError: With the command that replays it.
    """
    with world(ledger) as (make_ledger, folder):
        try:
            return simulate(seed, make_ledger, folder, steps, trace)
        except Exception as fault:
            command = f"python tests/simulation/sim_replay.py {seed} --ledger {ledger} --steps {steps}"
            raise BrokenInvariantError(f"{fault}\nreplay it with: {command}") from fault


def say(line):
    """Print one step."""
    sys.stdout.write(line + "\n")


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("--to", type=int, help="run all seeds up to this one, without printing steps")
    parser.add_argument("--ledger", choices=["memory", "sqlite"], default="memory")
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    failed = 0
    for seed in range(options.seed, (options.seed if options.to is None else options.to) + 1):
        try:
            run(seed, options.ledger, options.steps, say if options.to is None else None)
        except BrokenInvariantError as violation:
            failed += 1
            sys.stdout.write(f"seed {seed}: {violation}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
