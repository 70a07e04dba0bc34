"""Webhooks of an app that carries Paygent in itself, without a server beside it."""

import json
import logging
import time
from collections import Counter

import app_calls
import pytest
from app_calls import call, plan, until_refused
from django.core.management import call_command
from django.test import override_settings

from paygent import Paygent
from paygent_django import services, webhooks
from paygent_django.models import WebhookDelivery, WebhookNews
from paygent_django.services._base import rows
from paygent_django.webhooks import embedded, noticing, worker

SHARES = ["threshold_50", "threshold_80", "threshold_100"]
SURE = [*SHARES, "hard_gate", "blocked"]
# Where all processes have spent what they held before one of them learns of the others, nobody is warned.
NEWS = [*SURE, "soft_gate"]
WAIT_S = 60.0


pytestmark = pytest.mark.usefixtures("webhooks_to_loopback")


@pytest.fixture
def pg(alias):
    made = Paygent.init(ledger="django://", auto_instrument=False)
    yield made
    made.shutdown()


def allow(calls):
    """A plan that is used up to the last nano-dollar by so many calls."""
    exact = plan(calls, max_spend_per_period=calls / 100, pre_call_estimate=False)
    services.save_plan(services.project(), "default", exact)


def listen(receiver, **more):
    allow(100)
    return webhooks.create_endpoint(services.project(), receiver.url, **more)


def received(receiver):
    """How often each event has arrived."""
    return Counter(json.loads(body)["type"] for _, body in list(receiver.received))


def until(condition):
    ends_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < ends_s, "too late"
        time.sleep(0.02)


def test_what_happens_is_told(pg, receiver):
    """Calls of an embedded app tell its addresses of shares, warnings and refusals, once each, signed."""
    endpoint = listen(receiver)
    until_refused(pg)
    until(lambda: len(received(receiver)) == len(NEWS))
    assert received(receiver) == Counter(NEWS)
    for headers, body in receiver.received:
        assert webhooks.verify(endpoint.secret, headers["Paygent-Signature"], body, time.time())
        assert json.loads(body)["data"]["user_id"] == "ada"


def test_eight_processes_tell_once(start, receiver):
    """Eight processes that spend one plan tell each share and each decision once."""
    listen(receiver)
    crowd = [start(app_calls.spend_all) for _ in range(8)]
    assert [pipe.recv() for _, pipe in crowd] == ["ready"] * 8
    for _, pipe in crowd:
        pipe.send("go")
    assert sum(pipe.recv() for _, pipe in crowd) == 100
    for process, _ in crowd:
        process.join(WAIT_S)
    call_command("paygent_webhooks", "--once")  # what a process that ended has left
    until(lambda: set(SURE) <= received(receiver).keys())
    until(lambda: received(receiver).total() == rows(WebhookDelivery).count())
    assert received(receiver).keys() <= set(NEWS)
    assert set(received(receiver).values()) == {1}


def test_nobody_to_tell_costs_no_thread(pg):
    """Without an address there is no thread, and nothing is kept."""
    allow(3)
    until_refused(pg)
    pg.flush()
    assert not worker.is_running()
    assert not rows(WebhookNews).exists()


def test_an_address_that_is_added_later_is_heard_of(pg, receiver, monkeypatch):
    """An address that another process adds hears of the next call."""
    monkeypatch.setattr(embedded, "LOOKS_EVERY_S", 0.0)
    allow(100)
    call(pg)
    pg.flush()
    listen(receiver, events=["threshold_50"])
    for _ in range(50):
        call(pg)
    until(lambda: received(receiver) == Counter(["threshold_50"]))


def test_the_end_of_a_process_tells_the_rest(pg, receiver):
    """What was spent right before the process ends is told, and its thread ends with it."""
    listen(receiver, events=["threshold_100"])
    until_refused(pg)
    pg.shutdown()
    assert rows(WebhookDelivery).get().event == "threshold_100"
    assert not worker.is_running()


def test_a_test_of_an_address_goes_out_at_once(pg, receiver):
    """The test button works in a process that has metered calls before anybody listened."""
    call(pg)
    pg.flush()
    webhooks.send_test(listen(receiver))
    until(lambda: received(receiver) == Counter(["test"]))


def test_what_cannot_be_queued_is_queued_later(pg, receiver, monkeypatch, caplog):
    """A fault of the database delays what is told, is logged, and loses nothing."""
    queue, failures = noticing._queue, iter([OSError("the database is away")] * 2)

    def fail_twice(*given):
        for failure in failures:
            raise failure
        queue(*given)

    monkeypatch.setattr(noticing, "_queue", fail_twice)
    listen(receiver)
    with caplog.at_level(logging.ERROR, "paygent"):
        until_refused(pg)
        until(lambda: len(received(receiver)) == len(NEWS))
    assert "deliveries have to wait" in caplog.text


def test_a_log_holds_no_secret(alias, receiver, caplog):
    """What goes wrong with a delivery is logged without the secret that signs it."""
    endpoint = listen(receiver)
    receiver.statuses += [500]
    webhooks.send_test(endpoint)
    with caplog.at_level("DEBUG"):
        webhooks.deliver_due()
    assert "500" in caplog.text
    assert endpoint.secret not in caplog.text


def test_a_command_delivers_where_no_thread_shall(alias, receiver):
    """With WEBHOOKS = command the app's processes queue, and the command delivers."""
    with override_settings(PAYGENT={"DATABASE": alias, "WEBHOOKS": "command"}):
        pg = Paygent.init(ledger="django://", auto_instrument=False)
        listen(receiver, events=SHARES)
        until_refused(pg)
        pg.shutdown()
        assert sorted(row.event for row in rows(WebhookDelivery)) == sorted(SHARES)
        assert received(receiver) == Counter()
        call_command("paygent_webhooks", "--once")
    assert received(receiver) == Counter(SHARES)
