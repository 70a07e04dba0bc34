"""Whose turn it is among addresses, and how long it is remembered what was told."""

import logging
import random
import socket

import pytest

from paygent.testing._contract_values import Process, event
from paygent_django import services, webhooks
from paygent_django.ledger import DjangoLedger
from paygent_django.models import WebhookDelivery, WebhookEndpoint
from paygent_django.services._base import rows
from paygent_django.webhooks import noticing, sending, worker

DAY_US = 86_400_000_000


pytestmark = pytest.mark.usefixtures("webhooks_to_loopback")


@pytest.fixture
def hanging(monkeypatch):
    """An address that accepts, and never answers."""
    monkeypatch.setattr(sending, "ANSWER_S", 0.3)
    monkeypatch.setattr(worker, "HANGS_S", 0.2)
    with socket.socket() as tarpit:
        tarpit.bind(("127.0.0.1", 0))
        tarpit.listen(100)
        url = f"http://127.0.0.1:{tarpit.getsockname()[1]}/"
        yield webhooks.create_endpoint(services.create_project("theirs"), url)


def queue(endpoint, many, age_us=0):
    due_us = worker.now_us() - age_us
    made = (
        WebhookDelivery(endpoint=endpoint, event="test", body={}, next_attempt_us=due_us) for _ in range(many)
    )
    rows(WebhookDelivery).bulk_create(made)


def test_an_address_that_hangs_holds_up_nobody(hanging, receiver):
    """One delivery of another project goes out in the first turn, though forty others are older."""
    queue(hanging, 40, age_us=DAY_US)
    queue(webhooks.create_endpoint(services.project(), receiver.url), 1)
    webhooks.deliver_due(limit=20)
    assert len(receiver.received) == 1


def test_an_address_that_hangs_is_left_alone(hanging, caplog):
    """After a try in vain nothing more is due to that address for a while, longer each time."""
    queue(hanging, 40)
    with caplog.at_level(logging.WARNING, "paygent"):
        assert webhooks.deliver_due(limit=20) <= worker.AT_ONCE
        assert (webhooks.count_due(), webhooks.deliver_due()) == (0, 0)
        assert f"{hanging.uuid} lets us wait" in caplog.text
        rows(WebhookEndpoint).update(paused_until_us=0)
        webhooks.deliver_due(limit=1)
    hanging.refresh_from_db()
    assert hanging.timeouts == 2
    assert hanging.paused_until_us > worker.now_us() + worker.HANG_PAUSE_FIRST_S * 10**6 / 2


@pytest.mark.parametrize(
    "mend", [webhooks.send_test, lambda one: webhooks.change_endpoint(one, description="x")]
)
def test_who_has_mended_an_address_waits_no_longer(alias, receiver, mend):
    """A test of the address, or a change of it, ends its pause."""
    endpoint = webhooks.create_endpoint(services.project(), receiver.url)
    queue(endpoint, 1)
    rows(WebhookEndpoint).update(paused_until_us=worker.now_us() + DAY_US)
    assert webhooks.count_due() == 0
    mend(endpoint)
    assert webhooks.count_due() >= 1


def test_an_answer_forgets_earlier_pauses(alias, receiver):
    """An address that answers again begins with a short pause when it hangs once more."""
    endpoint = webhooks.create_endpoint(services.project(), receiver.url)
    rows(WebhookEndpoint).update(timeouts=9)
    queue(endpoint, 1)
    webhooks.deliver_due()
    endpoint.refresh_from_db()
    assert endpoint.timeouts == 0


@pytest.fixture
def half_used(alias, receiver):
    """A user of a yearly plan, who has used up half of it, and was told so long ago."""
    project = services.project()
    plan = services.save_plan(project, "year", {"max_spend_per_period": 1e-6}).plan
    user = services.ensure_user(project, "ada")
    now = worker.now_us()
    from paygent.core.windows import from_us

    period = {"period_start": from_us(now - 200 * DAY_US), "period_end": from_us(now + 165 * DAY_US)}
    services.subscribe(user, plan, **period)
    webhooks.create_endpoint(project, receiver.url, events=["threshold_50"])
    ledger = DjangoLedger(alias)
    ledger.settle([event(Process(ledger, "ada").ask(), 600)])
    ledger.close()
    webhooks.tell()
    webhooks.deliver_due()
    rows(WebhookDelivery).update(created_us=now - 100 * DAY_US)
    return project


def test_what_was_told_is_not_told_again_after_a_prune(half_used, receiver):
    """A share told in a period that still runs is remembered, by a process that has just begun too."""
    services.prune(half_used, before_us=worker.now_us() - 90 * DAY_US)
    noticing._told.clear()
    ledger = DjangoLedger()
    ledger.settle([event(Process(ledger, "ada").ask(), 1)])
    ledger.close()
    webhooks.tell()
    webhooks.deliver_due()
    assert len(receiver.received) == 1


def test_what_was_told_of_a_period_that_is_over_is_forgotten(half_used):
    """The memory of a period that ended before the cut goes with it."""
    pruned = services.prune(half_used, before_us=worker.now_us() + 300 * DAY_US)
    assert (pruned.deliveries, rows(WebhookDelivery).count()) == (1, 0)


def test_pauses_leave_the_apps_own_chance_alone(alias):
    """Pauses draw no number from the generator that the app may have seeded."""
    random.seed(7)
    before = random.getstate()
    worker.pause_s(3)
    assert random.getstate() == before


def test_a_database_that_is_gone_at_the_end_is_no_news(alias, monkeypatch, caplog):
    """Once the interpreter shuts down, a turn that fails ends the thread without a word."""
    monkeypatch.setattr(worker, "_has_ended", True)
    monkeypatch.setattr(worker, "deliver_due", lambda *_, **__: 1 / 0)
    with caplog.at_level(logging.INFO, "paygent"):
        webhooks.start()
        worker._thread.join(60)
    assert (worker.is_running(), caplog.text) == (False, "")
    webhooks.stop()
