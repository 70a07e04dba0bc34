import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connections
from django.test import override_settings
from hooks import Receiver
from rest_world import event, gate, now

from paygent_django import webhooks
from paygent_django.models import WebhookDelivery
from paygent_django.services._base import rows
from paygent_django.webhooks import noticing, worker

URL = "https://example.com/hook"


@pytest.fixture(autouse=True)
def _nothing_remembered():
    """What this process knows of addresses and deliveries belongs to another test's database."""
    noticing._heard.clear()
    noticing._told.clear()


@pytest.fixture
def receiver():
    with override_settings(PAYGENT_WEBHOOK_NETWORKS=["127.0.0.0/8"]), Receiver.listening() as receiver:
        yield receiver


def told():
    """What is queued: (event, user, scope or reason)."""
    return sorted(
        (row.event, row.body.get("user_id"), row.body.get("scope") or row.body.get("gate_reason"))
        for row in rows(WebhookDelivery)
    )


def test_shares_of_a_limit_are_told_once(api):
    """50, 80 and 100 % of each limit, once each, however often they are passed."""
    api.user(plan_id=api.plan(max_spend_per_period=1.0, model_limits={}))
    api.post("/webhooks", {"url": URL})
    seen = []
    for cost_nusd in (400_000_000, 150_000_000, 100_000_000, 200_000_000, 300_000_000):
        api.post("/events/batch", [event(cost_nusd=cost_nusd)])
        seen.append([name for name, _, _ in told()])
    fifty, eighty, all_of_it = "threshold_50", "threshold_80", "threshold_100"
    assert seen == [[], [fifty], [fifty], [fifty, eighty], [all_of_it, fifty, eighty]]


def test_a_lease_operation_tells_too(api):
    """Usage that arrives with a lease operation passes the same marks."""
    from rest_world import lease

    api.user(plan_id=api.plan(max_spend_per_period=1.0, model_limits={}))
    api.post("/webhooks", {"url": URL})
    api.post("/leases", [lease(events=[event(cost_nusd=10**9)])])
    assert [name for name, _, _ in told()] == ["threshold_100", "threshold_50", "threshold_80"]


def test_the_next_period_is_told_of_anew(api):
    """A mark counts per period."""
    api.user(plan_id=api.plan(max_spend_per_period=1.0, model_limits={}))
    api.post("/webhooks", {"url": URL, "events": ["threshold_50"]})
    api.post("/events/batch", [event(cost_nusd=600_000_000)])
    api.subscribe("ada", api.plan(max_spend_per_period=1.0, model_limits={}), start=now())
    api.post("/events/batch", [event(cost_nusd=600_000_000)])
    assert len(told()) == 2


def test_decisions_are_told_once_per_limit(api):
    """The first warning, the first refusal, and that a call was blocked."""
    api.user()
    api.post("/webhooks", {"url": URL})
    warned = [gate(status="soft_gate", blocked=False) for _ in range(3)]
    refused = [gate() for _ in range(3)] + [gate(gate_reason=f"model_limit:{'x'}")]
    api.post("/gate-events/batch", warned + refused)
    api.post("/gate-events/batch", refused)
    assert told() == [
        ("blocked", "ada", "model_limit:x"), ("blocked", "ada", "total_spend"),
        ("hard_gate", "ada", "model_limit:x"), ("hard_gate", "ada", "total_spend"),
        ("soft_gate", "ada", "total_spend"),
    ]  # fmt: skip


def test_many_processes_tell_once(api):
    """Eight that see the same mark at the same moment queue one delivery per address."""
    api.user(plan_id=api.plan(max_spend_per_period=1.0, model_limits={}))
    for _ in range(2):
        api.post("/webhooks", {"url": URL, "events": ["threshold_100", "hard_gate"]})
    from paygent.wire.events import gate_from_json
    from paygent_django import services

    ledger, barrier = services.ledger_of(api.project), threading.Barrier(8)
    ledger.settle([_core(event(cost_nusd=10**9), api)])
    ledger.record_gates([gate_from_json(gate())])

    def process(_):
        try:
            barrier.wait(60)
            noticing._told.clear()  # each process has a memory of its own
            webhooks.notice(api.project)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(process, range(8)))
    assert [name for name, _, _ in told()] == ["hard_gate", "hard_gate", "threshold_100", "threshold_100"]


def _core(said, api):
    from paygent.wire.events import event_from_json
    from paygent_django.api.windows import placed

    return placed(api.project, [event_from_json(said)])[0]


def test_an_address_hears_what_it_asked_for(api):
    """``events`` narrows what an address is told; one that is off hears nothing."""
    api.user()
    api.post("/webhooks", {"url": URL, "events": ["blocked"]})
    off = api.post("/webhooks", {"url": URL}).json()["id"]
    api.patch(f"/webhooks/{off}", {"is_enabled": False})
    api.post("/gate-events/batch", [gate()])
    assert [name for name, _, _ in told()] == ["blocked"]


def test_a_delivery_arrives(api, receiver):
    """What happened comes as JSON under the id of its delivery, and the log says so."""
    api.user()
    hook = api.post("/webhooks", {"url": receiver.url, "events": ["blocked"]}).json()
    api.post("/gate-events/batch", [gate()])
    assert webhooks.deliver_due() == 1
    headers, body = receiver.received[0]
    said = json.loads(body)
    assert (said["type"], said["data"]["user_id"], said["id"]) == (
        "blocked",
        "ada",
        headers["Paygent-Delivery"],
    )
    assert webhooks.verify(hook["secret"], headers["Paygent-Signature"], body, time.time())
    log = api.get(f"/webhooks/{hook['id']}/deliveries").json()["deliveries"][0]
    assert (log["attempts"], log["response_status"], log["last_error"]) == (1, 200, "")
    assert log["delivered_at"]
    assert webhooks.deliver_due() == 0


def test_what_fails_is_tried_again_later(api, receiver):
    """A failed try is logged, and due again after a pause; the id stays the same."""
    hook = api.post("/webhooks", {"url": receiver.url}).json()
    receiver.statuses = [500]
    api.post(f"/webhooks/{hook['id']}/test")
    assert webhooks.deliver_due() == 1
    row = rows(WebhookDelivery).get()
    assert (row.attempts, row.response_status, row.delivered_us) == (1, 500, None)
    assert webhooks.deliver_due() == 0
    rows(WebhookDelivery).update(next_attempt_us=row.next_attempt_us - 10**8)
    assert webhooks.deliver_due() == 1
    ids = {headers["Paygent-Delivery"] for headers, _ in receiver.received}
    assert (len(receiver.received), ids) == (2, {str(row.uuid)})
    assert rows(WebhookDelivery).get().delivered_us


def test_pauses_grow_and_vary():
    """Each pause is about twice the one before, up to six hours, and never the same for all."""
    pauses = [[worker.pause_s(attempt) for _ in range(50)] for attempt in range(1, worker.ATTEMPTS_MAX + 1)]
    longest = [min(worker.PAUSE_MAX_S, 5.0 * 2**number) for number in range(worker.ATTEMPTS_MAX)]
    for tries, limit in zip(pauses, longest, strict=True):
        assert limit / 2 <= min(tries) < max(tries) <= limit
    assert sum(map(min, pauses)) > 12 * 3600


def test_in_the_end_it_is_given_up(api, receiver):
    """After the last try nothing more is due, and the log keeps why."""
    hook = api.post("/webhooks", {"url": receiver.url}).json()
    api.post(f"/webhooks/{hook['id']}/test")
    rows(WebhookDelivery).update(attempts=worker.ATTEMPTS_MAX - 1)
    receiver.statuses = [503]
    webhooks.deliver_due()
    row = rows(WebhookDelivery).get()
    assert (row.attempts, row.next_attempt_us, row.delivered_us) == (worker.ATTEMPTS_MAX, None, None)
    assert "503" in row.last_error


def test_a_delivery_is_sent_by_one_process(api, receiver):
    """Eight that look for work at the same moment send each delivery once."""
    hook = api.post("/webhooks", {"url": receiver.url}).json()
    for _ in range(4):
        api.post(f"/webhooks/{hook['id']}/test")
    barrier = threading.Barrier(8)

    def process(_):
        try:
            barrier.wait(60)
            return webhooks.deliver_due()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(process, range(8))) == 4
    assert len({headers["Paygent-Delivery"] for headers, _ in receiver.received}) == 4
    assert len(receiver.received) == 4


def test_a_process_that_died_in_a_try_loses_nothing(api, receiver, monkeypatch):
    """What was claimed and never noted is due again after a minute."""
    hook = api.post("/webhooks", {"url": receiver.url}).json()
    api.post(f"/webhooks/{hook['id']}/test")
    with monkeypatch.context() as patch:
        patch.setattr(worker, "_try", lambda delivery: None)
        webhooks.deliver_due()
    later_us = worker.now_us() + int(timedelta(seconds=worker.CLAIMED_S + 1) / timedelta(microseconds=1))
    monkeypatch.setattr(worker, "now_us", lambda: later_us)
    assert webhooks.deliver_due() == 1
    assert len(receiver.received) == 1


def test_the_thread_delivers_by_itself(sqlite_api, receiver):
    """Once started, what is queued goes out without anybody asking, and it ends when told to."""
    webhooks.start()
    try:
        hook = sqlite_api.post("/webhooks", {"url": receiver.url}).json()
        sqlite_api.post(f"/webhooks/{hook['id']}/test")
        ends_s = time.monotonic() + 60
        while not receiver.received and time.monotonic() < ends_s:
            time.sleep(0.02)
    finally:
        webhooks.stop()
    assert len(receiver.received) == 1
    assert not any(thread.name == "paygent-webhooks" for thread in threading.enumerate())


def test_what_cannot_be_told_undoes_nothing(sqlite_api, monkeypatch, caplog):
    """A fault in telling is logged; the events are in the books."""
    sqlite_api.user()
    sqlite_api.post("/webhooks", {"url": URL})
    monkeypatch.setattr(noticing, "_queue", lambda *_: 1 / 0)
    assert sqlite_api.post("/events/batch", [event()]).json()["accepted"] == 1
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    "said, field",
    [
        ({"url": "http://169.254.169.254/latest"}, "url"),
        ({"url": "ftp://example.com"}, "url"),
        ({}, "url"),
        ({"url": URL, "events": ["blocked", "everything"]}, "events.1"),
        ({"url": URL, "description": "two\nlines"}, "description"),
    ],
)
def test_an_address_that_cannot_be_is_refused(sqlite_api, said, field):
    """422 with the field, and nothing is kept."""
    answer = sqlite_api.post("/webhooks", said)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert sqlite_api.get("/webhooks").json() == {"webhooks": []}


def test_an_address_is_changed_and_removed(sqlite_api):
    """The secret is shown when it is made, and never again."""
    made = sqlite_api.post("/webhooks", {"url": URL}).json()
    assert made["secret"].startswith("whsec_")
    path = f"/webhooks/{made['id']}"
    changed = sqlite_api.patch(path, {"description": "mine", "events": ["blocked"]}).json()
    assert (changed["description"], changed["events"], changed["url"]) == ("mine", ["blocked"], URL)
    assert "secret" not in changed
    assert made["secret"] not in sqlite_api.get("/webhooks").content.decode()
    assert sqlite_api.patch(path, {"url": "http://10.0.0.1/"}).status_code == 422
    assert sqlite_api.delete(path).status_code == 204
    assert sqlite_api.get(path).status_code == 404
