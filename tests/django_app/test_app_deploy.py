"""What Django's own checks and ours say of a project that goes into production."""

import subprocess
import sys
from pathlib import Path

import pytest
from django.test import override_settings

from paygent_django import checks, conf

HERE = Path(__file__).resolve().parent


def test_a_project_that_is_deployed_hears_nothing():
    """``check --deploy`` finds nothing to warn of in a project with Paygent, its admin and Stripe."""
    command = ["check", "--deploy", "--fail-level", "WARNING", "--settings", "deploy_settings"]
    said = subprocess.run(
        [sys.executable, "-m", "django", *command, "--pythonpath", str(HERE)],
        cwd=HERE.parents[1], capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert (said.returncode, said.stdout.strip()) == (
        0,
        "System check identified no issues (0 silenced).",
    ), said.stderr


@pytest.mark.parametrize("given", [{"WEBHOOKS": "cron"}, {"CONNECTION": "mine"}])
def test_another_word_is_an_error(given):
    """A setting that takes one of two words refuses others, and names both."""
    conf.options.cache_clear()
    with override_settings(PAYGENT=given):
        (found,) = checks.check_settings()
    name, word = next(iter(given.items()))
    assert found.id == "paygent.E003"
    assert name in found.msg
    assert repr(word) in found.msg
