import atexit
import shutil

import pytest
from backend_server import running
from django_project import harness
from real_servers import postgres, postgres_server, postgres_url

harness.set_up()

from django.test import override_settings  # noqa: E402  # it needs Django's settings
from django_app import app_databases  # noqa: E402
from django_project.harness import django_database, django_unblocked  # noqa: E402
from rest_world import Api  # noqa: E402

__all__ = ["django_database", "django_unblocked", "postgres_server", "postgres_url"]


@pytest.fixture(scope="session")
def sqlite_backend():
    """A backend on a SQLite file, for tests that need nothing of their own."""
    with running() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_backend():
    """A backend on PostgreSQL."""
    server = postgres()
    server.start()
    with running(server.new_database()) as backend:
        yield backend


@pytest.fixture(params=["sqlite", "postgres"])
def backend(request):
    """A backend in a process of its own, on each kind of database."""
    return request.getfixturevalue(f"{request.param}_backend")


@pytest.fixture
def sqlite_alias(tmp_path, django_unblocked):
    """A migrated SQLite database of this process."""
    alias = app_databases.add(**app_databases.fresh_sqlite(tmp_path))
    yield alias
    app_databases.remove(alias)


@pytest.fixture
def postgres_alias(postgres_server, django_unblocked):
    """A migrated PostgreSQL database of this process, empty at the start of each test."""
    name = app_databases.migrated_database(postgres_server)
    postgres_server.execute(app_databases.EMPTY + app_databases.deletions(), name)
    alias = app_databases.add(**app_databases.postgres(postgres_server.url(name)))
    yield alias
    app_databases.remove(alias)


@pytest.fixture(params=["sqlite", "postgres"])
def api(request):
    """The API in this process, with a key of a new project, on each kind of database."""
    alias = request.getfixturevalue(f"{request.param}_alias")
    with override_settings(PAYGENT={"DATABASE": alias}):
        yield Api.of_new_project()


@pytest.fixture
def sqlite_api(sqlite_alias):
    """The same on SQLite alone, for what no database has a part in."""
    with override_settings(PAYGENT={"DATABASE": sqlite_alias}):
        yield Api.of_new_project()


@atexit.register
def _clean_up():
    if app_databases.migrated_file.cache_info().currsize:
        shutil.rmtree(app_databases.migrated_file().parent, ignore_errors=True)
