"""
The system's Chromium: no Python package brings one, so that where there is none its tests are left out.

What runs on each change installs it first (``.ci/run``).
"""

from __future__ import annotations

import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
NO_CHROMIUM = f"none of {', '.join(NAMES)} is on the PATH"
# The one skip of the suite: `.ci/run` installs the system's package where it may.
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)
