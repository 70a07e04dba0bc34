"""``kill -9`` at random moments: what was answered is counted, once, and the next process starts at once."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys

import pytest
from fleet import HERE, Books, ask_surely, client, environment, plan
from victims import GATED_CALLS, THREADS

# How often processes are killed; each file sees several deaths, with a restart between them.
ROUNDS = int(os.environ.get("PAYGENT_KILL_ROUNDS", "200"))
ROUNDS_PER_FILE = 5
LIFE_S_MAX = 0.06  # from birth or, every other time, from the first word; for each who lives at once


@pytest.fixture(scope="module")
def victims():
    """A process with the SDK loaded, which forks those who die."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", str(HERE / "victims.py")]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, env=environment(), stdin=pipe, stdout=pipe, text=True)

    def play(**case):
        process.stdin.write(json.dumps(case) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    yield play
    process.communicate(timeout=60)


class File:
    """One ledger file and all that was ever answered on it."""

    def __init__(self, init, path):
        self.init = init
        self.path = path
        self.answered = []
        self.in_flight = 0
        self.sdk = client()

    def ask(self, user):
        return ask_surely(self.sdk, user)

    def restart(self, told):
        """Start a process right after the deaths, which must be free to go on and refuse who was spent."""
        pg = self.init(db_path=self.path, fail_open=False)
        self.in_flight += sum(self.ask(word) == "answered" for word in told if word.startswith("holder"))
        if "gated" in told:
            assert self.ask("gated") == "spent"
            pg.start_session("gated", "small", plan(GATED_CALLS))
            assert self.ask("gated") == "spent"
        pg.shutdown()

    def check(self, told, victims):
        holders = sum(word.startswith("holder") for word in told)
        self.answered += [word for word in told if word != "gated" and not word.startswith("holder")]
        before = self.in_flight
        self.restart(told)
        # Nobody was busy: who finds what the dead held in his way is, within far less than a lease lives.
        assert self.in_flight == before + holders
        books = Books(self.path)  # which finds no event twice
        assert set(self.answered) <= set(books.ids)
        self.in_flight += victims * THREADS  # at most: answered, and not told of any more
        assert len(books.ids) <= len(self.answered) + self.in_flight + GATED_CALLS
        assert books.left == ([], [])


@pytest.mark.timeout(600)  # most of a minute, beside other tests
@pytest.mark.parametrize("processes", [1, 3])
def test_what_was_answered_survives_kill_9(tmp_path, init, victims, processes):
    """After each death every answered call is in the file once, no lease is left, the spent are refused."""
    chance = random.Random(processes)
    told_of = 0
    for number in range(ROUNDS // 2):
        if number % ROUNDS_PER_FILE == 0:
            file = File(init, tmp_path / f"{number}.db")
        deaths_s = [chance.uniform(0, LIFE_S_MAX * processes) for _ in range(processes)]
        told = victims(path=str(file.path), name=str(number), deaths_s=deaths_s, speaks=number % 2)
        file.check(told, processes)
        told_of += len(told)
    assert told_of >= ROUNDS // 4  # they did live for a while
