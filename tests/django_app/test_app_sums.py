"""
Many events, some of them twice, out of order, over two periods: every sum is exact, and the admin is quick.

20 000 events of 2 000 users by default; ``PAYGENT_TEST_EVENTS`` says how many, and the users are a tenth of
them. ``--log-cli-level=INFO`` shows how long it all takes.
"""

import contextlib
import functools
import io
import json
import logging
import time
from typing import Any, NamedTuple

import app_databases
import mariadb_server
import pytest
import real_servers
from app_events import EVENTS, USERS, Sums, event_at, gate_at, sent, user_of
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connections
from django.db.models import Sum
from django.test import Client, override_settings
from django_admin.admin_pages import QUERIES, asked, pages_of, seconds, user_named

from paygent.ledger import LedgerError
from paygent.testing._contract_values import at_once
from paygent_django import services
from paygent_django.ledger import DjangoLedger
from paygent_django.ledger._events import MEASURES
from paygent_django.models import (
    DailyGate,
    DailyUsage,
    EndUser,
    GateEvent,
    Subscription,
    Total,
    UsageEvent,
    UserUsage,
)
from paygent_django.models.moments import now_us

pytestmark = pytest.mark.timeout(7200)  # a million takes minutes
KINDS = ("sqlite", "postgres", *(("mariadb",) if mariadb_server.PROGRAM else ()))
ROUNDS = 1 if EVENTS < 100_000 else 5
PAGE_S = 3.0  # ten times what a page may take: other tests run meanwhile
DAY_US = 86_400_000_000

wanted = functools.cache(Sums)
log = logging.getLogger("sums")


class Books(NamedTuple):
    """A database that all events were sent to, and of how many the ledger said that they were new."""

    alias: str
    new: int


@contextlib.contextmanager
def database(kind, folder):
    """The settings of an empty, migrated database."""
    if kind == "sqlite":
        yield app_databases.fresh_sqlite(folder)
    elif kind == "postgres":
        server = real_servers.postgres()
        server.start()
        url = server.new_database()
        settings = app_databases.postgres(url)
        app_databases.migrate(settings)
        yield settings
        server.drop_database(url)
    else:
        server = mariadb_server.mariadb()
        server.start()
        yield app_databases.migrated_schema(server)


@pytest.fixture(scope="module", params=KINDS)
def books(request, tmp_path_factory, django_unblocked):
    """The books of each kind of database; closed after all tests of a kind."""
    with database(request.param, tmp_path_factory.mktemp("books")) as settings:
        alias = app_databases.add(**settings)
        if request.param == "mariadb":
            app_databases.empty_schema(alias)
        with override_settings(PAYGENT={"DATABASE": alias}):
            customers()
            began = time.perf_counter()
            new = write(alias)
            each_us = (time.perf_counter() - began) / EVENTS * 1e6
            log.info("%s: %d events of %d users, %.0f us each", request.param, EVENTS, USERS, each_us)
            if request.param == "postgres":
                with connections[alias].cursor() as cursor:
                    cursor.execute("ANALYZE")  # as autovacuum does, which is off here
            yield Books(alias, new)
        app_databases.remove(alias)


def customers():
    """Users with names, three in four with a plan; the others are made by their first event."""
    project, now = services.project(), now_us()
    alias = project._state.db
    plans = [
        services.save_plan(
            project, name, {"max_spend_per_period": 5.0 * 4**rank}, price_nano=rank * 10**10, rank=rank
        ).plan
        for rank, name in enumerate(("free", "pro", "team"))
    ]
    services.set_default_plan(project, plans[0])
    made = [
        EndUser(
            project=project,
            external_user_id=user_of(number),
            name=f"Customer {number}",
            email=f"c{number}@example.com",
        )
        for number in range(USERS)
        if number % 4
    ]
    made = EndUser.objects.using(alias).bulk_create(made, batch_size=500)
    if made[0].pk is None:
        made = list(EndUser.objects.using(alias).order_by("pk"))
    Subscription.objects.using(alias).bulk_create(
        [Subscription(user=user, plan=plans[user.pk % 3], starts_us=now - 80 * DAY_US) for user in made],
        batch_size=500,
    )


def done(operation, *arguments):
    """What *operation* returns; as a process does, it tries again where another one has the file locked."""
    for _ in range(100):
        with contextlib.suppress(LedgerError):
            return operation(*arguments)
    return operation(*arguments)


def write(alias):
    """Two processes post at once, an embedded one and a backend; returns how many events were new."""
    batches = sent(EVENTS)
    new = []

    def embedded():
        ledger = DjangoLedger(alias)
        for batch in batches[::2]:
            new.append(done(ledger.settle, list(map(event_at, batch))))
            done(ledger.record_gates, [gate_at(number) for number in batch if number % 20 == 0])
        ledger.close()

    def backend():
        ledger = services.ledger_of(services.project())
        for batch in batches[1::2]:
            posted = done(ledger.post, list(map(event_at, batch)))
            assert posted.conflicts == []
            new.append(posted.accepted)
            done(ledger.record_gates, [gate_at(number) for number in batch if number % 20 == 0])
        connections[alias].close()

    at_once(lambda post: post(), [embedded, backend])
    return sum(new)


def rows(model, books) -> Any:
    return model.objects.using(books.alias)


def test_each_event_counts_once(books):
    """There are as many rows as distinct events, and the ledger called as many of them new."""
    assert books.new == rows(UsageEvent, books).count() == EVENTS
    assert rows(GateEvent, books).count() == len(range(0, EVENTS, 20))


def test_sums_are_exact_whatever_the_order(books):
    """Each total of each user, scope and window is exactly what his distinct events add up to."""
    stored = rows(Total, books).values_list("user__external_user_id", "scope", "window", "amount")
    found = 0
    for *key, amount in stored.iterator(5000):
        assert wanted().totals[tuple(key)] == amount
        found += 1
    assert found == len(wanted().totals)


def test_the_sums_of_users_are_exact(books):
    """Each user's sums by day and by month are exactly those of his distinct events."""
    stored = rows(UserUsage, books).values_list("user__external_user_id", "grain", "starts", *MEASURES)
    found = 0
    for user, grain, starts, *measures in stored.iterator(5000):
        assert wanted().users[user, grain, starts] == measures
        found += 1
    assert found == len(wanted().users)


def test_the_sums_of_the_project_are_exact(books):
    """The sums by day, model and feature, and those of decisions, are exactly those of the distinct rows."""
    usage = (
        rows(DailyUsage, books).values_list("day", "model", "tag").annotate(*map(Sum, MEASURES)).order_by()
    )
    assert {tuple(row[:3]): list(map(int, row[3:])) for row in usage} == wanted().days
    gates = rows(DailyGate, books).values_list("day", "blocked").annotate(Sum("count")).order_by()
    assert {(day, blocked): int(count) for day, blocked, count in gates} == wanted().decisions
    spent = rows(UserUsage, books).filter(grain=UserUsage.MONTH).aggregate(n=Sum("cost_nusd"))
    assert spent["n"] == wanted().spent_nusd


def test_reconcile_finds_no_difference(books):
    """``paygent_reconcile`` computes every counter anew and finds all of them right."""
    said, began = io.StringIO(), time.perf_counter()
    call_command("paygent_reconcile", format="json", stdout=said)
    log.info("paygent_reconcile: %.1f s", time.perf_counter() - began)
    assert json.loads(said.getvalue()) == {"differences": 0, "mended": 0, "found": []}


def test_reconcile_finds_a_planted_difference(books):
    """A total that is one too high is found, and nothing else."""
    first = rows(Total, books).select_related("user").order_by("pk").first()
    one = rows(Total, books).filter(pk=first.pk)
    one.update(amount=first.amount + 1)
    try:
        (planted,) = services.reconcile(services.project())
    finally:
        one.update(amount=first.amount)
    assert planted[1:] == (
        first.user.external_user_id, f"{first.scope} in {first.window}", first.amount + 1, first.amount
    )  # fmt: skip


@pytest.fixture
def boss(django_database):
    """The superuser's browser."""
    client = Client()
    client.force_login(User.objects.get_or_create(username="boss", is_staff=True, is_superuser=True)[0])
    return client


def test_the_admin_stays_within_its_limits(books, boss):
    """No page asks more often than it is allowed to, and each answers in time."""
    pages = pages_of(user_named(books.alias, user_of(0)))
    counts = {name: len(asked(boss, books.alias, url)) for name, url in pages.items()}
    taken = {name: seconds(boss, url, ROUNDS) for name, url in pages.items()}
    for name, taken_s in taken.items():
        log.info("%s: %d queries, %.0f ms", name, counts[name], taken_s * 1000)
    assert {name: count for name, count in counts.items() if count > QUERIES[name]} == {}
    assert {name: taken_s for name, taken_s in taken.items() if taken_s > PAGE_S} == {}
