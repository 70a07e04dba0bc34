"""Databases for one test each, with the tables of all apps."""

import contextlib
import itertools
from urllib.parse import urlsplit

from django.core.management import call_command
from django.db import connections

_numbers = itertools.count()


@contextlib.contextmanager
def added(settings):
    """Make a database known to Django under an alias."""
    alias = f"stripe{next(_numbers)}"
    connections.settings[alias] = connections.configure_settings({"default": {}, alias: settings})[alias]
    try:
        yield alias
    finally:
        connections[alias].close()
        del connections[alias]
        del connections.settings[alias]


def migrate(alias):
    """Make the tables."""
    call_command("migrate", database=alias, verbosity=0)


def sqlite(path):
    """Settings of a SQLite file."""
    options = {"timeout": 20, "init_command": "PRAGMA journal_mode=WAL"}
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path), "OPTIONS": options}


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
