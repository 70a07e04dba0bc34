"""How pages ask the database: as often with many rows as with few, by indexes, and without counting."""

import itertools
import re

import pytest
from admin_data import DAY_US, believable, event_of, gate_of
from django.db import connections
from django.test.utils import CaptureQueriesContext, override_settings

from paygent_django import services
from paygent_django.models import EndUser, Plan, UsageEvent
from paygent_django.models.moments import now_us

ADMIN = "/admin/paygent_django/"
BIG = ("paygent_event", "paygent_gateevent", "paygent_userusage", "paygent_total")


def pages(project):
    alias = project._state.db
    user = EndUser.objects.using(alias).get(external_user_id="user_4137")
    event = UsageEvent.objects.using(alias).filter(user=user).first()
    plan = Plan.objects.using(alias).get(name="pro")
    return {
        "overview": f"{ADMIN}dailyusage/",
        "users": f"{ADMIN}enduser/",
        "spenders": f"{ADMIN}enduser/?by=spend",
        "search": f"{ADMIN}enduser/?q=user_4",
        "user": f"{ADMIN}enduser/{user.pk}/change/",
        "older": f"{ADMIN}enduser/{user.pk}/change/?events={now_us()}.9&gates={now_us()}.9",
        "events": f"{ADMIN}usageevent/",
        "later events": f"{ADMIN}usageevent/?after={now_us()}.99999",
        "events of a user": f"{ADMIN}usageevent/?user={user.pk}",
        "events of a day": f"{ADMIN}usageevent/?from=2026-01-01",
        "event by id": f"{ADMIN}usageevent/?q={event.event_id}",
        "event": f"{ADMIN}usageevent/{event.pk}/change/",
        "decisions": f"{ADMIN}gateevent/",
        "leases": f"{ADMIN}lease/",
        "plans": f"{ADMIN}plan/",
        "plan": f"{ADMIN}plan/{plan.pk}/change/",
    }


def asked(client, alias, url):
    """What a page asks Paygent's database."""
    with CaptureQueriesContext(connections[alias]) as queries:
        assert client.get(url).status_code == 200
    return [query["sql"] for query in queries]


def more(project):
    """Three times the users, events and decisions."""
    ledger, now = services.ledger_of(project), now_us()
    names = [f"more-{number}" for number in range(45)]
    ledger.settle([event_of(name, now - number * DAY_US // 9) for number, name in enumerate(names * 4)])
    ledger.settle([event_of("user_4137", now - number * 1000) for number in range(60)])
    ledger.record_gates([gate_of("user_4137", now - number * 1000) for number in range(60)])


def test_more_rows_are_no_more_queries(boss, filled):
    """Each page asks as many questions with three times the rows, and never more than 25."""
    alias, found = filled._state.db, pages(filled)
    before = {name: len(asked(boss, alias, url)) for name, url in found.items()}
    more(filled)
    after = {name: len(asked(boss, alias, url)) for name, url in found.items()}
    assert after == before
    assert max(before.values()) <= 25


@pytest.fixture
def postgres_project(postgres_alias):
    with override_settings(PAYGENT={"DATABASE": postgres_alias}):
        project = believable(calls=150, days=20)
        more(project)
        yield project


def scans(alias, sql):
    """The tables that a query reads from end to end, where PostgreSQL has an index to choose."""
    with connections[alias].cursor() as cursor:
        for way in ("seqscan", "bitmapscan", "sort"):  # small tables tempt it to ways that large ones forbid
            cursor.execute(f"SET enable_{way} = off")
        cursor.execute("EXPLAIN " + sql)
        plan = "\n".join(line for (line,) in cursor.fetchall())
        cursor.execute("RESET ALL")
    return set(re.findall(r"Seq Scan on (\w+)", plan)), plan


def test_no_page_reads_the_ledger_from_end_to_end(boss, postgres_project):
    """With PostgreSQL no page counts the ledger or users, and each of its queries there has an index."""
    alias = postgres_project._state.db
    for name, url in pages(postgres_project).items():
        for sql in asked(boss, alias, url):
            if not sql.startswith("SELECT"):
                continue
            assert not re.search(r"COUNT\(\*\).*FROM \"paygent_(event|gateevent|enduser|total)\"", sql), name
            assert not scans(alias, sql)[0] & set(BIG), f"{name}: {sql}\n{scans(alias, sql)[1]}"


def test_a_page_of_events_stops_at_its_end(boss, postgres_project):
    """Lists of events ask for one row more than they show, in the order of an index: nothing is sorted."""
    alias = postgres_project._state.db
    for name in ("events", "events of a user", "decisions"):
        asking = [sql for sql in asked(boss, alias, pages(postgres_project)[name]) if "timestamp_us" in sql]
        plans = "\n".join(scans(alias, sql)[1] for sql in asking)
        assert "Limit" in plans
        assert not re.search(r"^ *->  Sort ", plans, re.MULTILINE), plans


def test_all_pages_work_with_postgresql(boss, postgres_project):
    """Every page and both exports answer with PostgreSQL as with SQLite."""
    exports = (f"{ADMIN}usageevent/export/{kind}/" for kind in ("csv", "json"))
    for url in itertools.chain(pages(postgres_project).values(), [f"{ADMIN}enduser/?q=%00"]):
        assert boss.get(url).status_code == 200
    for url in exports:
        assert len(b"".join(boss.get(url).streaming_content)) > 10_000
