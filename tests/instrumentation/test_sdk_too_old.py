"""An SDK from before its clients had a common base: nothing of it is metered, and that is said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BEFORE = "import {sdk}; seam.instrument()"
LATER = "seam.instrument(); import {sdk}"
orders = pytest.mark.parametrize("order", [BEFORE, LATER], ids=["imported before", "imported later"])


def said(order: str, sdk: str, first_on_path: Path) -> str:
    """Return what a fresh process says on its standard error."""
    code = "from paygent.instrumentation import seam; " + order.format(sdk=sdk)
    path = os.pathsep.join([str(first_on_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, check=True, timeout=100,
    )  # fmt: skip
    return done.stderr


@orders
@pytest.mark.parametrize("sdk", ["openai", "anthropic"])
def test_an_sdk_that_is_too_old_is_warned_of(tmp_path: Path, sdk: str, order: str) -> None:
    """Its name and release are in the one line that says that its calls are not metered."""
    (tmp_path / sdk).mkdir()
    (tmp_path / sdk / "__init__.py").write_text('__version__ = "0.28.1"\n', encoding="utf-8")
    assert said(order, sdk, tmp_path).splitlines() == [
        f"Paygent does not know {sdk} 0.28.1: its calls are not metered; update it"
    ]


@orders
def test_nothing_is_said_of_the_sdks_that_are_known(tmp_path: Path, order: str) -> None:
    """The SDKs of these tests are patched without a word."""
    assert said(order, "openai, anthropic", tmp_path) == ""
