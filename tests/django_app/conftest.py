import atexit
import multiprocessing
import os
import shutil
import sys
from pathlib import Path

import pytest
from django_project import harness
from ledger_waits import ledger_waits
from real_servers import postgres_server, postgres_url

harness.set_up()

import app_databases  # noqa: E402  # it needs Django's settings
import mariadb_server  # noqa: E402
from django.db import connections  # noqa: E402
from django.test import override_settings  # noqa: E402
from django_project.harness import django_database, django_unblocked  # noqa: E402

__all__ = ["django_database", "django_unblocked", "ledger_waits", "postgres_server", "postgres_url"]


@pytest.fixture
def sqlite_alias(tmp_path, django_unblocked):
    """A migrated SQLite database."""
    alias = app_databases.add(**app_databases.fresh_sqlite(tmp_path))
    yield alias
    app_databases.remove(alias)


@pytest.fixture
def postgres_alias(postgres_server, django_unblocked):
    """A migrated PostgreSQL database, empty at the start of each test."""
    postgres_server.start()
    name = app_databases.migrated_database(postgres_server)
    postgres_server.execute(app_databases.EMPTY + app_databases.deletions(), name)
    alias = app_databases.add(**app_databases.postgres(postgres_server.url(name)))
    yield alias
    app_databases.remove(alias)


@pytest.fixture
def mariadb_alias(django_unblocked):
    """A migrated MariaDB database, empty at the start of each test."""
    server = mariadb_server.mariadb()
    server.start()
    settings = app_databases.migrated_schema(server)
    alias = app_databases.add(**settings)
    app_databases.empty_schema(alias)
    yield alias
    app_databases.remove(alias)


# A server that has everything imported, and forks a process in no time.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["app_calls", "django.db.backends.sqlite3.base", "django.db.models"])
_DATABASE = ("ENGINE", "NAME", "USER", "HOST", "PORT", "OPTIONS")
BACKEND = str(Path(__file__).parents[1] / "backend")
if BACKEND not in sys.path:
    sys.path.append(BACKEND)
from hooks import Receiver  # noqa: E402

KINDS = ["sqlite", "postgres", *(["mariadb"] if mariadb_server.PROGRAM else [])]


def pytest_terminal_summary(terminalreporter):
    """Say what was not tested here."""
    if mariadb_server.PROGRAM is None:
        terminalreporter.write_line("no mariadbd on the PATH: the Django ledger is not tested on MariaDB")


@pytest.fixture(params=KINDS)
def alias(request):
    """A migrated database, of each kind."""
    return request.getfixturevalue(f"{request.param}_alias")


@pytest.fixture
def webhooks_to_loopback(alias):
    """The app is in the test's database, and may deliver to this machine; nothing was told yet."""
    from paygent_django.webhooks import noticing  # needs Django's settings

    noticing._heard.clear()
    noticing._told.clear()
    with override_settings(PAYGENT={"DATABASE": alias}, PAYGENT_WEBHOOK_NETWORKS=["127.0.0.0/8"]):
        yield


@pytest.fixture
def receiver():
    """Whoever is told."""
    with Receiver.listening() as receiver:
        yield receiver


@pytest.fixture
def start(alias):
    """Start a process that does something on the test's database; returns it and the end of its pipe."""
    started = []
    database = {key: connections[alias].settings_dict[key] for key in _DATABASE}

    def run(target):
        ours, theirs = processes.Pipe()
        process = processes.Process(target=target, args=(theirs, (os.environ["HOME"], database)), daemon=True)
        process.start()
        theirs.close()
        started.append(process)
        return process, ours

    yield run
    for process in started:
        process.kill()
        process.join(30)


@atexit.register
def _clean_up():
    if app_databases.migrated_file.cache_info().currsize:
        shutil.rmtree(app_databases.migrated_file().parent, ignore_errors=True)
