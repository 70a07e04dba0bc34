"""What every test starts from: an empty home and no configuration in the environment."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# A deadline for each example would be a test of the machine. Other health checks stay.
hypothesis.settings.register_profile(
    "paygent", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("paygent")

CONFIGURATION = ("PAYGENT_", "OPENAI_", "ANTHROPIC_")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--every-extra", action="store_true", help="also install the extras that are very large")


@pytest.fixture(autouse=True)
def _same_log() -> Iterator[None]:
    """No test leaves the log in a state in which the next one would miss a warning."""
    before = _log_state()
    yield
    assert _log_state() == before


def _log_state() -> tuple[object, ...]:
    own = logging.getLogger("paygent")
    is_heard = logging.getLogger().isEnabledFor(logging.WARNING)
    return is_heard, own.isEnabledFor(logging.WARNING), own.propagate, own.disabled, tuple(own.filters)


@pytest.fixture(autouse=True)
def _empty_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees or touches the developer's own ledger, keys or settings."""
    home: Path = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for name in [name for name in os.environ if name.startswith(CONFIGURATION)]:
        monkeypatch.delenv(name)
