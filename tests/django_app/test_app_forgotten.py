"""A user who is made anonymous is in no column of any table any more; an export holds what is kept."""

import json
import uuid
from datetime import datetime, timedelta, timezone

import pytest
from django.apps import apps
from django.db import connections
from django.test.utils import CaptureQueriesContext

from paygent.ledger import GateRow, Job
from paygent.testing._contract_values import Process, event
from paygent_django import services, webhooks
from paygent_django.ledger import DjangoLedger
from paygent_django.models import DailyUsage, Total, UsageEvent, WebhookDelivery
from paygent_django.services._base import rows
from paygent_django.webhooks import noticing

NAME = "greta"


pytestmark = pytest.mark.usefixtures("webhooks_to_loopback")


@pytest.fixture
def ledger(alias):
    made = DjangoLedger(alias)
    yield made
    made.close()


@pytest.fixture
def greta(ledger):
    """A user whose name is in every text that an app can give."""
    project = services.project()
    services.save_plan(project, "default", {"max_spend_per_period": 1e-6})
    webhooks.create_endpoint(project, "http://127.0.0.1:9999/hook")
    user = services.create_user(project, NAME, name=NAME, email=f"{NAME}@example.org", metadata={"of": NAME})
    now = datetime.now(timezone.utc)
    period = {"period_start": now - timedelta(days=1), "period_end": now + timedelta(days=9)}
    services.subscribe(user, None, reference=f"sub of {NAME}", **period)
    services.grant(user, 5, key=f"sorry, {NAME}", reason=f"for {NAME}")
    reply = Process(ledger, NAME).ask(session_id=f"{NAME}'s chat")
    said = {"metadata": {"feature": f"ask {NAME}"}, "description": NAME, "tool_calls": (f"mail_{NAME}",)}
    ledger.settle([event(reply, 9000, model="m", **said)])
    ledger.put_job(Job("batch_1", NAME, f"{NAME}'s chat", "openai", "m", {"of": NAME}))
    gate = GateRow(
        str(uuid.uuid4()), NAME, now_us(), NAME, "hard_gate", "total_spend", 1.0, 1.0, 1.0, "m", 1,
        f"No, {NAME}", {"of": NAME}, 1,
    )  # fmt: skip
    ledger.record_gates([gate])
    webhooks.tell()
    return user


def now_us():
    return int(datetime.now(timezone.utc).timestamp() * 1_000_000)


def said_of(alias):
    """Where the name stands, as table.column."""
    found = set()
    for model in apps.get_app_config("paygent_django").get_models():
        table = model._meta.db_table
        with connections[alias].cursor() as cursor:
            cursor.execute(f"SELECT * FROM {table}")
            columns = [column[0] for column in cursor.description]
            for row in cursor.fetchall():
                found |= {
                    f"{table}.{name}"
                    for name, value in zip(columns, row, strict=True)
                    if NAME in str(value).lower()
                }
    return found


def test_an_anonymous_user_is_named_nowhere(greta, alias):
    """His name was in twelve columns and more, and is in none; what he used still agrees."""
    assert len(said_of(alias)) >= 12
    services.anonymise(greta)
    assert said_of(alias) == set()
    assert list(services.reconcile(services.project())) == []


def test_what_waits_is_not_sent_any_more(greta):
    """Webhooks that tell of him and were not delivered yet are gone, and nobody else's."""
    other = services.ensure_user(services.project(), "bob")
    rows(WebhookDelivery).create(
        endpoint=rows(WebhookDelivery).first().endpoint, event="test", body={}, user=other
    )
    assert webhooks.count_due() > 1
    services.anonymise(greta)
    assert webhooks.count_due() == 1


def test_who_is_made_anonymous_meanwhile_is_not_queued(greta, ledger, monkeypatch):
    """A process that had read the user before he was made anonymous queues nothing of him after it."""
    rows(WebhookDelivery).all().delete()
    noticing._told.clear()
    ledger.settle([event(Process(ledger, NAME).ask(), 9000, model="m")])
    of_usages = noticing._of_usages

    def overtaken(*given):
        news = list(of_usages(*given))
        services.anonymise(services.find_user(services.project(), NAME))
        return news

    monkeypatch.setattr(noticing, "_of_usages", overtaken)
    webhooks.tell()
    assert not rows(WebhookDelivery).exists()


def test_sums_of_a_tag_that_others_use_stay(greta, ledger):
    """What others have spent under the same tag stays under it; what he has spent goes on without a tag."""
    reply = Process(ledger, "bob").ask()
    ledger.settle([event(reply, 50, model="m", metadata={"feature": f"ask {NAME}"})])
    services.anonymise(greta)
    by_tag = {}
    for row in rows(DailyUsage):
        by_tag[row.tag] = by_tag.get(row.tag, 0) + row.cost_nusd
    assert by_tag == {f"ask {NAME}": 50, "": 9000}


def with_sessions(ledger, user_id, count):
    """A user who has spent 1, 2, 3 … nano-dollars in so many sessions."""
    reply = Process(ledger, user_id).ask()
    spent = [event(reply, n, session=f"s{n}:{user_id}'s chat, ä{n}") for n in range(1, count + 1)]
    for start in range(0, count, 500):
        ledger.settle(spent[start : start + 500])
    return services.find_user(services.project(), user_id)


def test_many_sessions_take_few_statements(ledger, alias):
    """Who had 650 sessions is forgotten with nearly the statements that take one who had three."""
    services.save_plan(services.project(), "default", {"max_spend_per_period": 1.0})
    users = [with_sessions(ledger, "few", 3), with_sessions(ledger, "many", 650)]
    counts = []
    for user in users:
        with CaptureQueriesContext(connections[alias]) as statements:
            services.anonymise(user)
        counts.append(len(statements))
    assert counts[1] - counts[0] <= 10
    assert list(services.reconcile(services.project())) == []


def test_sessions_that_lost_their_names_are_told_apart(ledger):
    """Each keeps its sum and when it began, in the events and in the sums, and has a name of its own."""
    services.save_plan(services.project(), "default", {"max_spend_per_period": 1.0})
    user = with_sessions(ledger, "many", 350)
    services.anonymise(user)
    summed = dict(rows(Total).filter(user=user, scope="session_spend").values_list("window", "amount"))
    assert summed == dict(rows(UsageEvent).filter(user=user).values_list("session", "cost_nusd"))
    assert {name.partition(":")[0]: amount for name, amount in summed.items()} == {
        f"s{n}": n for n in range(1, 351)
    }
    assert len(summed) == 350
    assert not any("chat" in name for name in summed)


def test_an_export_holds_what_is_kept(greta):
    """References, reasons, jobs, sessions and decisions are in it, and JSON can write it."""
    export = services.export_user(greta)
    said = json.dumps(export)
    assert all(
        text in said
        for text in (
            f"sub of {NAME}",
            f"for {NAME}",
            "batch_1",
            f"{NAME}'s chat",
            f"No, {NAME}",
            f"mail_{NAME}",
        )
    )
    assert export["jobs"][0]["metadata"] == {"of": NAME}
