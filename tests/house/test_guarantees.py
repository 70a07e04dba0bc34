"""``docs/guarantees.md`` names a test for each guarantee; a test that is gone proves nothing."""

import re
import subprocess
import sys

import pytest
from project import ROOT, environment

DOCUMENT = ROOT / "docs" / "guarantees.md"
NODE = re.compile(r"`(tests/[\w/]+\.py(?:::\w+)+)`")
ROW = re.compile(r"^\| (?!-|guarantee|cause)(?P<cells>.+) \|$", re.MULTILINE)


def named():
    return set(NODE.findall(DOCUMENT.read_text(encoding="utf-8")))


def collected(files):
    """The tests in *files* as pytest finds them, also those that a class inherits, without parameters."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *sorted(files)]
    listing = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False, timeout=250
    )
    assert listing.returncode == 0, listing.stdout + listing.stderr
    return {line.partition("[")[0] for line in listing.stdout.splitlines() if "::" in line}


@pytest.mark.timeout(300)  # it collects most of the tests: ten seconds where nothing else runs
def test_each_test_that_a_guarantee_names_exists():
    """Every test that docs/guarantees.md names is one that pytest runs."""
    nodes = named()
    assert len(nodes) > 20
    assert nodes - collected({node.partition("::")[0] for node in nodes}) == set()


def test_each_guarantee_names_its_proof():
    """Every row of its tables names a test, or says in words that no test can show it."""
    rows = ROW.findall(DOCUMENT.read_text(encoding="utf-8"))
    assert len(rows) > 20
    assert [row for row in rows if not NODE.search(row) and "no test" not in row] == []
