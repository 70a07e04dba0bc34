"""Dramatiq: messages and pipelines of the app's, sent for several users: none of them stays in them."""

from __future__ import annotations

import pickle

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from dramatiq.encoder import JSONEncoder, PickleEncoder
from dramatiq.middleware import Middleware, MiddlewareError, Pipelines, Retries
from dramatiq.worker import Worker

from paygent import paygent_context
from paygent.context import current_payer
from paygent.integrations.dramatiq import PaygentMiddleware
from paygent.propagation import NOTE


class Failing(Middleware):
    """Fails the sending of a message, before or after the note of the user is in it."""

    is_on = False

    def before_enqueue(self, broker, message, delay):
        if self.is_on:
            raise MiddlewareError("no connection")


@pytest.fixture(params=["first", "last"])
def broker(request):
    """A broker with Paygent's middleware as the first or the last of all."""
    others = [Retries(min_backoff=1, max_backoff=1), Pipelines(), Failing()]
    ours = PaygentMiddleware()
    broker = StubBroker(middleware=[ours, *others] if request.param == "first" else [*others, ours])
    yield broker
    broker.close()


@pytest.fixture
def failing(broker):
    return next(middleware for middleware in broker.middleware if isinstance(middleware, Failing))


@pytest.fixture
def seen():
    return []


@pytest.fixture
def actor(broker, seen):
    """Return an actor that notes whose it is."""

    @dramatiq.actor(broker=broker, max_retries=0)
    def notes(*_):
        seen.append(None if current_payer() is None else current_payer().user_id)

    return notes


@pytest.fixture
def work(broker):
    """Return a function that does all that is in the queue."""

    def work():
        worker = Worker(broker, worker_timeout=20, worker_threads=1)
        worker.start()
        try:
            broker.join("default", timeout=60_000, fail_fast=False)
            worker.join()
        finally:
            worker.stop()

    return work


def enqueued(broker, message, user, **more):
    """Send *message* in a request of *user*; ``None``: where nobody pays."""
    if user is None:
        broker.enqueue(message, **more)
        return
    with paygent_context(user):
        broker.enqueue(message, **more)


@pytest.mark.parametrize("delays", [{}, {"delay": 1}])
def test_a_message_that_is_sent_for_several_is_each_ones(delays, broker, actor, work, seen):
    """A message that the app keeps belongs, each time, to whoever sends it, and to nobody after them."""
    message = actor.message()
    for user in ("ann", "ben", None):
        enqueued(broker, message, user, **delays)
        work()
    assert seen == ["ann", "ben", None]
    assert NOTE not in message.options


def test_a_pipeline_that_is_run_for_several_is_each_ones(broker, actor, work, seen):
    """Every stage of a pipeline that the app keeps belongs to whoever runs it."""
    nightly = dramatiq.pipeline([actor.message(), actor.message()], broker=broker)
    for user in ("ann", "ben"):
        with paygent_context(user):
            nightly.run()
        work()
    nightly.run()
    work()
    assert seen == ["ann", "ann", "ben", "ben", None, None]


def test_a_message_that_was_sent_alone_is_another_ones_in_a_pipeline(broker, actor, work, seen):
    """A message that was sent for one user, and then stands in the pipeline of another, is that one's."""
    message = actor.message()
    enqueued(broker, message, "ann")
    with paygent_context("ben"):
        dramatiq.pipeline([actor.message(), message], broker=broker).run()
    work()
    assert sorted(seen) == ["ann", "ben", "ben"]


@pytest.mark.parametrize("next_user", ["ben", None])
def test_a_message_that_could_not_be_sent_keeps_nobody(next_user, broker, failing, actor, work, seen):
    """After a failed attempt the message is sent for whoever sends it next."""
    message = actor.message()
    failing.is_on = True
    with pytest.raises(MiddlewareError):
        enqueued(broker, message, "ann")
    failing.is_on = False
    enqueued(broker, message, next_user)
    work()
    assert seen == [next_user]


def test_a_retry_behind_a_delay_keeps_its_user(broker, work, seen):
    """What a worker sends again, by itself and late, is still the user's of the first attempt."""

    @dramatiq.actor(broker=broker, max_retries=2)
    def fails_twice():
        seen.append(current_payer().user_id)
        if len(seen) < 3:
            raise ConnectionError("not yet")

    message = fails_twice.message()
    enqueued(broker, message, "ann", delay=1)
    work()
    assert seen == ["ann", "ann", "ann"]


@pytest.mark.parametrize("encoder", [JSONEncoder, PickleEncoder])
def test_a_note_arrives_as_plain_text(encoder, broker, actor):
    """Whatever encodes the messages, what the queue holds needs nothing of ours to be read."""
    before = dramatiq.get_encoder()
    dramatiq.set_encoder(encoder())
    try:
        enqueued(broker, actor.message(), "ann")
        sent = broker.queues["default"].get()
        assert b"integrations" not in sent
        noted = (pickle.loads(sent) if encoder is PickleEncoder else encoder().decode(sent))["options"][NOTE]
    finally:
        dramatiq.set_encoder(before)
    assert type(noted) is str
    assert "ann" in noted
