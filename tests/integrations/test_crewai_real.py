"""The real CrewAI, in an environment of its own: it pins an older OpenAI SDK than the other tests use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow_env

SCRIPT = Path(__file__).with_name("crewai_real.py")
PROJECT = SCRIPT.parents[2]
MACHINE = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
METERED = [
    "callback", "context", "both", "stream", "stream in context", "tools", "structured", "anthropic",
    "anthropic in context", "async", "async in context", "batch", "without patches",
]  # fmt: skip


def run(*command, **environment):
    return subprocess.run(
        [str(part) for part in command],
        env={**MACHINE, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Return what was metered and billed in each scenario."""
    folder = tmp_path_factory.mktemp("crewai")
    interpreter = folder / "env/bin/python"
    made = run(sys.executable, "-m", "venv", "--without-pip", folder / "env")
    assert made.returncode == 0, made.stderr
    install = [sys.executable, "-m", "pip", "--python", interpreter, "install", "--quiet"]
    installed = run(*install, f"{PROJECT}[crewai]", "anthropic")
    assert installed.returncode == 0, installed.stderr
    home = {"HOME": str(folder), "PYTHONPATH": str(PROJECT)}
    result = run(interpreter, SCRIPT, **home)
    assert result.returncode == 0, result.stderr[-5000:]
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", METERED)
def test_a_crew_is_metered_once_for_its_user(seen, scenario):
    """Every call that the server billed is one event of ann's, with the tokens that were billed."""
    told = seen[scenario]
    assert (told["refused"], told["users"]) == (False, ["ann"])
    for metered, billed in (told["calls"], told["input"], told["output"]):
        assert metered == billed > 0


@pytest.mark.parametrize("scenario", ["spent with callback", "spent in context"])
def test_a_spent_user_is_refused_before_the_first_call(seen, scenario):
    """The refusal comes out of ``kickoff`` as it is, through CrewAI's own retries; nothing was sent."""
    told = seen[scenario]
    assert (told["refused"], told["requests"], told["calls"]) == (True, 0, [0, 0])
