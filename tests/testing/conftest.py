from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from llm_shells import Shell, settled

from paygent.testing.llm_server import LLMServer


@pytest.fixture(scope="module")
def _running() -> Iterator[LLMServer]:
    with LLMServer() as running:
        yield running


@pytest.fixture
def server(_running: LLMServer) -> LLMServer:
    """A running server that counts from zero."""
    _running.reset()
    return _running


@pytest.fixture(params=["server", "stub"])
async def shell(request: pytest.FixtureRequest, server: LLMServer) -> AsyncIterator[Shell]:
    """SDK clients on one of the two shells, closed after the test."""
    made = Shell(request.param, server)
    yield made
    for client in made.clients:
        await settled(client.close())
