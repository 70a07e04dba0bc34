import asyncio
import contextvars
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from engine_values import call, plan

from paygent import PaygentLimitExceeded
from paygent.context import Payer
from paygent.core.usage import Usage
from paygent.meter.nesting import _streams


@pytest.fixture(autouse=True)
def _own_context():
    """No test sees the streams that another one left open."""
    token = _streams.set(())
    yield
    _streams.reset(token)


@pytest.fixture
def pg(init):
    """A user whose plan covers two calls of a cent; callers that are in each other's way wait for long."""
    pg = init(ledger="memory://", busy_timeout=3600)  # what waits for itself would not end
    pg.configure_plan("default", plan(2))
    return pg


def open_stream(pg, cents=2):
    """A stream that holds what *cents* calls may cost, as an instrumented SDK leaves it with its reader."""
    stream = pg._meter.call(Payer("ada"), "openai", "chat", "m", 0, 10 * cents - 1)
    with stream:
        stream.defer()
    return stream


def refusal(pg):
    with pytest.raises(PaygentLimitExceeded) as refused:
        call(pg)
    return refused.value


def test_a_call_never_waits_for_its_own_stream(pg):
    """A tool that calls while its own stream holds what is left is refused at once, as busy."""
    stream = open_stream(pg)
    refused = refusal(pg)
    assert refused.retryable
    stream.finish(Usage(10))
    assert call(pg)


def test_a_task_of_the_streams_reader_does_not_wait_either(pg):
    """The context goes along into tasks: a tool that runs in one is refused at once too."""

    async def read():
        open_stream(pg)
        tool = asyncio.create_task(pg.awrap(ok, user_id="ada", model="m", estimated_max_tokens=9))
        with pytest.raises(PaygentLimitExceeded):
            await tool

    async def ok():
        return {}

    asyncio.run(read())


def test_a_call_that_fits_beside_its_own_stream_is_made(pg):
    """A stream that leaves room is in nobody's way."""
    pg.configure_plan("default", plan(3.5))
    open_stream(pg, cents=2)
    assert call(pg)


def test_another_context_waits_for_the_stream(pg):
    """To a caller elsewhere the stream is somebody else's: he waits until it has ended, and goes on."""
    stream = open_stream(pg)
    with ThreadPoolExecutor(1) as elsewhere:
        waiting = elsewhere.submit(contextvars.Context().run, call, pg)
        while not pg._meter.wallets["ada"].asks:
            time.sleep(0.001)
        stream.finish(Usage(10))
        assert waiting.result(timeout=30)


def test_streams_that_have_ended_are_forgotten(pg):
    """A context does not gather the streams it has read."""

    def read_many():
        for _ in range(50):
            open_stream(pg, cents=0.1).fail(None)
        return len(_streams.get())

    assert contextvars.copy_context().run(read_many) == 1
