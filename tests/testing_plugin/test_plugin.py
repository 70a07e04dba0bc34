"""The plugin in a pytest of its own, as an app's developer runs it."""

from __future__ import annotations

import os
import subprocess
import sys

HEAVY = {"anthropic", "django", "flask", "httpx", "httpx2", "hypothesis", "openai", "starlette", "wrapt"}

TESTS = """
import openai
from paygent import Paygent, PlanConfig, ModelCostRate, paygent_context

def test_spend(paygent_sandbox, paygent_provider, assert_spend, assert_blocked):
    rate = ModelCostRate(input=1.0, output=2.0)
    paygent_sandbox.pg.configure_plan("default", PlanConfig(max_spend_per_period=1, default_cost_rate=rate))
    paygent_provider.reply(tokens=(1000, 0))
    with paygent_context("ann"):
        openai.OpenAI().chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hi"}])
    assert_spend("ann", 1.0)
    assert_blocked("ann")

def test_without():
    assert Paygent.get_instance() is None
"""


def run_pytest(folder, *arguments):
    # As the entry point would load it, and no other plugin.
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "paygent.testing.plugin", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, "-q", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_fixtures_work_in_a_pytest_of_their_own(tmp_path):
    """A test file that names the fixtures passes; nothing of it reaches a test that does not."""
    (tmp_path / "test_app.py").write_text(TESTS)
    result = run_pytest(tmp_path, "-W", "error")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 passed" in result.stdout


def test_the_plugin_loads_nothing_heavy_and_changes_no_test(tmp_path):
    """A suite that uses no fixture of ours pays for one small module, and has no autouse fixture."""
    (tmp_path / "test_nothing.py").write_text(
        "import sys\n\n"
        "def test_nothing(request):\n"
        f"    assert not {HEAVY!r} & set(sys.modules)\n"
        "    assert 'paygent.testing.sandbox' not in sys.modules\n"
        "    assert request.fixturenames == ['request']\n"
    )
    result = run_pytest(tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_fixtures_explain_themselves(tmp_path):
    """``pytest --fixtures`` shows each with its sentence."""
    listing = run_pytest(tmp_path, "--fixtures").stdout
    for name in ("paygent_sandbox", "paygent_provider", "assert_spend", "assert_blocked"):
        assert name in listing
    assert "no docstring available" not in listing.partition("paygent.testing.plugin")[2]
