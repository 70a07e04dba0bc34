"""The tables: migrations, settings, several databases, links to the project's own users."""

import io
import itertools
import os
import subprocess
import sys
import uuid

import app_databases
import pytest
from django.contrib.auth import get_user_model
from django.core import checks
from django.core.management import call_command
from django.db import IntegrityError, connections, transaction
from django.test import override_settings

from paygent.testing._contract_values import Process, at_once, event
from paygent_django import services
from paygent_django.database import PaygentRouter, database_alias
from paygent_django.ledger._events import MEASURES
from paygent_django.models import EndUser, Project, Subscription, UsageEvent
from paygent_django.models.fields import escape, unescape


def test_the_models_have_their_migrations():
    """No model differs from what the migrations make of it."""
    call_command("makemigrations", "paygent_django", check=True, dry_run=True, stdout=io.StringIO())


OTHER_SETTINGS = """
import sys
from django.conf import settings
settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1]}},
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "paygent_django"],
    DEFAULT_AUTO_FIELD="django.db.models.AutoField", USE_TZ=False, TIME_ZONE="Asia/Tokyo", SECRET_KEY="x",
    LANGUAGE_CODE="de",
)
import django
django.setup()
from django.core.management import call_command
call_command("makemigrations", "paygent_django", check=True, dry_run=True, verbosity=0)
call_command("migrate", verbosity=0)
from datetime import datetime, timezone as tz
from paygent_django import services
user = services.ensure_user(services.project(), "ada")
start, end = datetime(2026, 1, 1, tzinfo=tz.utc), datetime(2026, 2, 1, tzinfo=tz.utc)
made = services.subscribe(user, None, period_start=start, period_end=end)
print(made.period_start_us)
"""


def test_other_settings_change_no_table(tmp_path):
    """Another default key, language and time zone, and USE_TZ=False, change neither tables nor instants."""
    done = subprocess.run(
        [sys.executable, "-c", OTHER_SETTINGS, tmp_path / "other.sqlite3"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == ("1767225600000000", "")


ALONE = """
import sys
from django.conf import settings
settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1]}},
    INSTALLED_APPS=["paygent_django"], SECRET_KEY="x",
    MIDDLEWARE=["paygent_django.middleware.PaygentMiddleware"],
)
import django
django.setup()
from django.core.management import call_command
call_command("check", fail_level="WARNING")
call_command("makemigrations", "paygent_django", check=True, dry_run=True, verbosity=0)
call_command("migrate", verbosity=0)
from paygent_django import services
user = services.ensure_user(services.project(), "from-a-token")
print(user, user.auth_user)
"""


def test_a_project_needs_no_users_of_djangos(tmp_path):
    """Without ``django.contrib.auth`` a project starts, passes its checks, migrates and has users."""
    done = subprocess.run(
        [sys.executable, "-c", ALONE, tmp_path / "alone.sqlite3"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.splitlines()[-1:], done.returncode) == (["from-a-token None"], 0), done.stderr


def test_the_models_pass_djangos_own_checks():
    """Django finds nothing to warn of in the models, on either kind of database."""
    assert [found for found in checks.run_checks() if "paygent_django." in str(found.obj)] == []


def test_migrations_go_back(postgres_server, django_unblocked):
    """All migrations can be undone."""
    alias = app_databases.add(**app_databases.postgres(postgres_server.new_database()))
    call_command("migrate", database=alias, verbosity=0)
    call_command("migrate", "paygent_django", "zero", database=alias, verbosity=0)
    left = [name for name in connections[alias].introspection.table_names() if name.startswith("paygent_")]
    app_databases.remove(alias)
    assert left == []


def test_the_last_migration_goes_back_and_forth(tmp_path, django_unblocked):
    """With SQLite too the indexes of the last migration can be taken back and made again."""
    alias = app_databases.add(**app_databases.fresh_sqlite(tmp_path))
    for step in ("0002", "0003"):
        call_command("migrate", "paygent_django", step, database=alias, verbosity=0)
    with connections[alias].cursor() as cursor:
        indexes = connections[alias].introspection.get_constraints(cursor, "paygent_userusage")
    app_databases.remove(alias)
    assert "paygent_userusage_span" in indexes
    assert "paygent_userusage_top" not in indexes


def test_an_event_changes_no_index_of_the_sums(alias):
    """No index holds what events add to, so that adding to a sum writes its row alone."""
    with connections[alias].cursor() as cursor:
        for table, sums in (
            ("paygent_userusage", MEASURES),
            ("paygent_total", ["amount"]),
            ("paygent_dailyusage", MEASURES),
        ):
            found = connections[alias].introspection.get_constraints(cursor, table).values()
            indexed = {column for one in found if one["index"] or one["unique"] for column in one["columns"]}
            assert indexed
            assert indexed.isdisjoint(sums), table


def test_postgresql_leaves_room_for_updates(postgres_alias):
    """Pages of rows that are updated all the time have room for the next versions of their rows."""
    with connections[postgres_alias].cursor() as cursor:
        cursor.execute(
            "SELECT relname, reloptions[1] FROM pg_class WHERE reloptions IS NOT NULL AND relkind = 'r'"
        )
        found = {name: option for name, option in cursor.fetchall() if name.startswith("paygent_")}
    assert found == {
        "paygent_total": "fillfactor=50", "paygent_lease": "fillfactor=50",
        "paygent_userusage": "fillfactor=80", "paygent_enduser": "fillfactor=80",
    }  # fmt: skip


def test_postgresql_refuses_every_overlap(postgres_alias):
    """Where the database can say so, no two subscriptions of one user overlap, whoever writes them."""
    with override_settings(PAYGENT={"DATABASE": postgres_alias}):
        ada, bob = (services.ensure_user(services.project(), name) for name in ("ada", "bob"))
        rows = Subscription.objects.using(postgres_alias)
        rows.create(user=ada, starts_us=10, ends_us=20)
        for starts_us, ends_us in ((12, 18), (5, 11), (19, 30), (5, 30)):
            with pytest.raises(IntegrityError), transaction.atomic(using=postgres_alias):
                rows.create(user=ada, starts_us=starts_us, ends_us=ends_us)
        rows.create(user=ada, starts_us=20, ends_us=30)
        rows.create(user=bob, starts_us=12, ends_us=18)


def test_a_router_keeps_the_tables_in_their_database(tmp_path, django_database):
    """With the router, Paygent's tables and rows are in the database of its setting, and only there."""
    alias = app_databases.add(**app_databases.sqlite(tmp_path / "own.sqlite3"))
    routed = {"PAYGENT": {"DATABASE": alias}, "DATABASE_ROUTERS": ["paygent_django.database.PaygentRouter"]}
    with override_settings(**routed):
        call_command("migrate", database=alias, verbosity=0)
        Project.objects.create(name="routed")
        assert Project.objects.using(alias).get().name == "routed"
        tables = connections[alias].introspection.table_names()
    app_databases.remove(alias)
    assert [name for name in tables if name.startswith("auth_")] == [
        "auth_group"
    ] or "paygent_event" in tables
    assert not Project.objects.using("default").filter(name="routed").exists()


def test_a_router_leaves_other_apps_alone():
    """The router has no opinion on models of other apps, and allows links between both."""
    router = PaygentRouter()
    assert router.db_for_read(get_user_model()) is router.db_for_write(get_user_model()) is None
    assert router.allow_migrate("default", "auth") is None
    assert router.allow_relation(EndUser(), get_user_model()()) is True
    assert router.allow_migrate(database_alias(), "paygent_django") is True
    assert router.allow_migrate("elsewhere", "paygent_django") is False


def test_deleting_an_account_keeps_its_usage(sqlite_alias, django_database):
    """When a user of the project is deleted, also in another database, his usage stays, unlinked."""
    with override_settings(PAYGENT={"DATABASE": sqlite_alias}):
        account = get_user_model().objects.create(username=f"ada-{uuid.uuid4()}")
        user = services.ensure_user(services.project(), str(account.pk))
        services.link_auth_user(user, account)
        linked = services.find_user(services.project(), str(account.pk))
        assert (linked.auth_user_id, linked.auth_user) == (str(account.pk), account)
        account.delete()
        unlinked = services.find_user(services.project(), user.external_user_id)
        assert (unlinked.auth_user_id, unlinked.auth_user) == (None, None)


@pytest.mark.parametrize("text", ["", "plain", "a\0b", "\0\0", "␀", "␀\0␀␁", "␁", "␀␀", "💥\0"])
def test_escaping_loses_nothing(text):
    """Any text comes back as it was, and no NUL reaches the database."""
    assert unescape(escape(text)) == text
    assert "\0" not in escape(text)


def test_escaping_keeps_texts_apart():
    """Different texts stay different."""
    texts = ["".join(signs) for n in range(5) for signs in itertools.product("\0␀␁a", repeat=n)]
    assert len({escape(text) for text in texts}) == len(texts)


def test_names_differ_by_case_and_blanks(alias):
    """Models find a user by exactly his name, a NUL included."""
    with override_settings(PAYGENT={"DATABASE": alias}):
        names = ["ada", "Ada", "ada ", "a\0da"]
        pks = {name: services.ensure_user(services.project(), name).pk for name in names}
        assert len(set(pks.values())) == 4
        assert {name: services.find_user(services.project(), name).pk for name in names} == pks


def test_the_shared_ledger_works_in_any_thread(alias):
    """One shared ledger object serves request threads at once, each on its own connection."""
    with override_settings(PAYGENT={"DATABASE": alias}):
        ledger = services.ledger_of(services.project())

        def serve(number):
            try:
                for _ in range(5):
                    ledger.post([event(Process(ledger, f"user {number}").ask(), 1)])
            finally:
                connections[alias].close()

        at_once(serve, range(3))
        assert UsageEvent.objects.using(alias).count() == 15
        assert Subscription.objects.using(alias).count() == 0
