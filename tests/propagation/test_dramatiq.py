"""Dramatiq: its stub broker, and a real Redis; the user travels in the message's options."""

from __future__ import annotations

import contextlib

import dramatiq
import pytest
from dramatiq.brokers.redis import RedisBroker
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import AsyncIO, Middleware, Pipelines, Retries, SkipMessage
from dramatiq.worker import Worker

from paygent import PaygentLimitExceeded, PlanConfig, paygent_context
from paygent.context import current_payer
from paygent.integrations.dramatiq import PaygentMiddleware


@pytest.fixture(params=["stub", "redis"])
def broker(request):
    own = [Retries(min_backoff=1, max_backoff=1), Pipelines(), AsyncIO()]
    if request.param == "stub":
        broker = StubBroker(middleware=own)
    else:
        broker = RedisBroker(url=request.getfixturevalue("redis_url"), middleware=own)
    broker.add_middleware(PaygentMiddleware())
    yield broker
    broker.close()
    if isinstance(broker, RedisBroker):
        broker.client.close()


@pytest.fixture
def working(broker):
    """Return a context in which one worker thread serves the broker, until all is done."""

    @contextlib.contextmanager
    def working():
        worker = Worker(broker, worker_timeout=20, worker_threads=1)
        worker.start()
        try:
            yield worker
            if isinstance(broker, StubBroker):
                broker.join("default", timeout=60_000, fail_fast=False)
            else:
                broker.join("default", interval=20, timeout=60_000)
            worker.join()
        finally:
            worker.stop()

    return working


@pytest.fixture
def seen():
    return []


@pytest.fixture
def actor(broker, ask, seen):
    """Return an actor that asks a model, and notes for whom."""

    @dramatiq.actor(broker=broker, max_retries=0)
    def asks(*_):
        seen.append(None if current_payer() is None else current_payer().user_id)
        ask()

    return asks


def test_a_message_runs_for_the_user_who_sent_it(actor, working, posted, seen):
    """Messages of two users and of nobody on one thread: each call is charged to its own."""
    with working():
        for user in ("ann", "ben"):
            with paygent_context(user):
                actor.send()
        actor.send()
        with paygent_context("ann"):
            actor.send_with_options(delay=10)
    assert sorted(map(str, seen)) == ["None", "ann", "ann", "ben"]
    assert sorted(posted) == ["ann", "ann", "ben"]


def test_an_async_actor_runs_for_its_user(broker, working, ask, posted):
    """The event loop that Dramatiq runs in another thread has the user too."""

    @dramatiq.actor(broker=broker)
    async def asks():
        ask()

    with working(), paygent_context("ann"):
        asks.send()
    assert posted == ["ann"]


def test_a_retry_is_still_the_users(broker, working, ask, posted):
    """A message that is sent again after a failure keeps its user."""
    attempts = []

    @dramatiq.actor(broker=broker, max_retries=2)
    def fails_once():
        attempts.append(current_payer().user_id)
        if len(attempts) == 1:
            raise ConnectionError("once")
        ask()

    with working(), paygent_context("ann"):
        fails_once.send()
    assert (attempts, posted) == (["ann", "ann"], ["ann"])


def test_a_pipeline_is_the_users(broker, actor, working, posted):
    """Every stage of a pipeline belongs to the user of the first."""
    with working(), paygent_context("ann"):
        dramatiq.pipeline([actor.message(), actor.message()], broker=broker).run()
    assert posted == ["ann", "ann"]


def test_a_spent_user_is_refused_in_the_worker(broker, working, ask, pg):
    """The gate stands in the worker too; ``throws`` spares the retries."""
    pg.configure_plan("free", PlanConfig(max_spend_per_period=0.0))
    pg.assign_plan("ann", "free")
    refused = []

    @dramatiq.actor(broker=broker, throws=PaygentLimitExceeded)
    def asks():
        try:
            ask()
        except PaygentLimitExceeded as error:
            refused.append(error.guard_result.gate_reason)
            raise

    with working(), paygent_context("ann"):
        asks.send()
    assert refused == ["total_spend"]


def test_a_skipped_message_leaves_no_user_behind(broker, actor, working, seen):
    """Where another middleware skips a message, the next one is not its user's."""

    class SkipFirst(Middleware):
        skipped = False

        def before_process_message(self, broker, message):
            if not self.skipped:
                self.skipped = True
                raise SkipMessage("not now")

    broker.add_middleware(SkipFirst())
    with working() as worker:
        with paygent_context("ann"):
            actor.send()
        worker.broker.join("default")  # before 2.0 workers may take the messages that wait in any order
        actor.send()
    assert seen == [None]


def test_a_forged_option_is_nobodys(actor, working, seen, caplog):
    """An option that is no note of ours names nobody; the message runs."""
    with working():
        actor.send_with_options(paygent={"user_id": "ann"})
    assert seen == [None]
    assert "note of who pays is left out" in caplog.text
