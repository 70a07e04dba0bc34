"""How pages ask the database: as often with many rows as with few, by indexes, and without counting."""

import itertools
import re

import pytest
from admin_data import DAY_US, believable, event_of, gate_of
from admin_pages import ADMIN, QUERIES, asked, pages_of, user_named
from django.db import connections
from django.test.utils import override_settings

from paygent_django import services
from paygent_django.models import EndUser
from paygent_django.models.moments import now_us

BIG = ("paygent_event", "paygent_gateevent", "paygent_userusage", "paygent_total")


def pages(project):
    return pages_of(user_named(project._state.db, "user_4137"))


def more(project):
    """Three times the users, events and decisions."""
    ledger, now = services.ledger_of(project), now_us()
    names = [f"more-{number}" for number in range(45)]
    ledger.settle([event_of(name, now - number * DAY_US // 9) for number, name in enumerate(names * 4)])
    ledger.settle([event_of("user_4137", now - number * 1000) for number in range(60)])
    ledger.record_gates([gate_of("user_4137", now - number * 1000) for number in range(60)])


def test_more_rows_are_no_more_queries(boss, filled):
    """Each page asks as often with three times the rows, and never more than it is allowed to."""
    alias, found = filled._state.db, pages(filled)
    before = {name: len(asked(boss, alias, url)) for name, url in found.items()}
    more(filled)
    after = {name: len(asked(boss, alias, url)) for name, url in found.items()}
    assert {name: n for name, n in after.items() if n > before[name]} == {}
    assert {name: n for name, n in after.items() if n > QUERIES[name]} == {}


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


def bitmap(alias, sql):
    """How PostgreSQL answers a query where it must not read a table in any order."""
    with connections[alias].cursor() as cursor:
        for way in ("seqscan", "indexscan"):
            cursor.execute(f"SET enable_{way} = off")
        cursor.execute("EXPLAIN " + sql)
        plan = "\n".join(line for (line,) in cursor.fetchall())
        cursor.execute("RESET ALL")
    return plan


def test_an_address_is_looked_up(boss, postgres_project):
    """A search for an e-mail address is answered by the indexes of ids and of addresses, in any case."""
    alias = postgres_project._state.db
    crowd = [
        EndUser(project=postgres_project, external_user_id=f"x{n}@example.org", email=f"y{n}@example.org")
        for n in range(3000)
    ]
    EndUser.objects.using(alias).bulk_create(crowd)
    with connections[alias].cursor() as cursor:
        cursor.execute("ANALYZE paygent_enduser")
    url = f"{ADMIN}enduser/?q=ADA@Exam"
    assert "Ada Lovelace" in boss.get(url).content.decode()
    searches = [sql for sql in asked(boss, alias, url) if " LIKE " in sql]
    assert len(searches) == 2
    for sql in searches:
        plan = bitmap(alias, sql)
        assert re.search(r"paygent_enduser_id_like.*\n.*~>=~ 'ADA@Exam'", plan), plan
        assert re.search(r"paygent_enduser_email_like.*\n.*~>=~ 'ADA@EXAM'", plan), plan


def test_a_name_that_is_an_address_is_found(boss, filled):
    """What looks like an address and begins none is looked for in names."""
    services.create_user(filled, "nobody", name="Write to me@example.net")
    shown = boss.get(f"{ADMIN}enduser/?q=me@example.net").content.decode()
    assert "Write to me@example.net" in shown
    assert "Ada Lovelace" not in shown


def test_a_refund_is_looked_up(boss, postgres_project):
    """Whether an event was refunded is asked of an index, however many events its user has."""
    alias = postgres_project._state.db
    asking = [sql for sql in asked(boss, alias, pages(postgres_project)["event"]) if 'corrects" =' in sql]
    assert len(asking) == 1
    assert "Index Scan on paygent_event_corrects" in bitmap(alias, asking[0])


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
