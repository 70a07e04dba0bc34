"""Migrated databases for one test each: a copied SQLite file, a PostgreSQL database that is emptied."""

import functools
import itertools
import shutil
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from django.apps import apps
from django.core.management import call_command
from django.db import connections

_numbers = itertools.count()


def add(**settings):
    """Make a database known to Django; returns its alias."""
    alias = f"app{next(_numbers)}"
    connections.settings[alias] = connections.configure_settings({"default": {}, alias: settings})[alias]
    return alias


def remove(alias):
    """Close this thread's connection and forget the database."""
    connections[alias].close()
    del connections[alias]
    del connections.settings[alias]


def sqlite(path, **options):
    """Settings of a SQLite file in WAL mode."""
    init = "PRAGMA journal_mode=WAL"
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(path),
        "OPTIONS": {"timeout": 20, "init_command": init, **options},
    }


def postgres(url):
    """Settings of a PostgreSQL database."""
    parts = urlsplit(url)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path[1:],
        "USER": parts.username,
        "HOST": parts.hostname,
        "PORT": str(parts.port),
    }


@functools.cache
def migrated_file():
    """A SQLite file with all tables and no rows."""
    path = Path(tempfile.mkdtemp(prefix="paygent-app-")) / "template.sqlite3"
    migrate(sqlite(path))
    return path


@functools.cache
def migrated_database(server):
    """The name of a PostgreSQL database with all tables and no rows."""
    url = server.new_database()
    migrate(postgres(url))
    return url.rpartition("/")[2]


def migrate(settings):
    """Make all tables in the database of *settings*."""
    alias = add(**settings)
    call_command("migrate", database=alias, verbosity=0)
    remove(alias)


def fresh_sqlite(folder):
    """The settings of a migrated SQLite file of the test's own."""
    path = folder / "app.sqlite3"
    shutil.copy(migrated_file(), path)
    return sqlite(path)


@functools.cache
def migrated_schema(server):
    """The settings of a MariaDB database with all tables."""
    settings = server.new_database("app")
    migrate(settings)
    return settings


def empty_schema(alias):
    """Remove all rows."""
    with connections[alias].constraint_checks_disabled(), connections[alias].cursor() as cursor:
        for deletion in deletions().split("; "):
            cursor.execute(deletion)


# A fraction of the time of TRUNCATE, which makes new files; constraints between the tables sleep.
EMPTY = "SET session_replication_role = replica; "


def deletions():
    """SQL that empties every table of the app."""
    models = apps.get_app_config("paygent_django").get_models()
    return "; ".join(f"DELETE FROM {model._meta.db_table}" for model in models)
