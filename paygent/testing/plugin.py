"""
The pytest plugin: fixtures for the tests of an app that uses Paygent.

Installed with Paygent, and idle until a test asks for a fixture: nothing is imported, patched or started
before. ``docs/testing.md`` shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from paygent.testing._scripted import ScriptedProvider
    from paygent.testing.sandbox import Sandbox


@pytest.fixture
def paygent_sandbox() -> Iterator[Sandbox]:
    """Paygent on a ledger of this test's own, a clock that can travel, and providers without a network."""
    from paygent.testing.sandbox import sandbox  # loaded where it is asked for

    with sandbox() as box:
        yield box


@pytest.fixture
def paygent_provider(paygent_sandbox: Sandbox) -> ScriptedProvider:
    """The provider behind the real SDKs: ``reply(text, tokens=…, delay_s=…)``, ``fail(status)``."""
    return paygent_sandbox.provider


@pytest.fixture
def assert_spend(paygent_sandbox: Sandbox) -> Callable[[str, float], None]:
    """``assert_spend(user_id, usd)``: what the user has spent in the running period, exactly."""
    return paygent_sandbox.assert_spend


@pytest.fixture
def assert_blocked(paygent_sandbox: Sandbox) -> Callable[..., None]:
    """``assert_blocked(user_id, model=None)``: the user's next call would be refused."""
    return paygent_sandbox.assert_blocked
