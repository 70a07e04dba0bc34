import atexit
import functools
import shutil
import uuid

import pytest
from django_project import harness
from real_servers import postgres_server, postgres_url

harness.set_up()

import admin_data  # noqa: E402  # it needs Django's settings
from django.db import connections  # noqa: E402
from django.test import Client, override_settings  # noqa: E402
from django_app import app_databases  # noqa: E402
from django_project.harness import django_database, django_unblocked  # noqa: E402

from paygent import Paygent  # noqa: E402
from paygent_django import services  # noqa: E402

__all__ = ["django_database", "django_unblocked", "postgres_server", "postgres_url"]


@pytest.fixture
def sqlite_alias(tmp_path, django_database):
    """A migrated SQLite database of Paygent's; the project's own users are in the default one."""
    made = app_databases.add(**app_databases.fresh_sqlite(tmp_path))
    yield made
    app_databases.remove(made)


@pytest.fixture
def postgres_alias(postgres_server, django_database):
    """The same in PostgreSQL."""
    postgres_server.start()
    name = app_databases.migrated_database(postgres_server)
    postgres_server.execute(app_databases.EMPTY + app_databases.deletions(), name)
    made = app_databases.add(**app_databases.postgres(postgres_server.url(name)))
    yield made
    app_databases.remove(made)


@pytest.fixture
def alias(sqlite_alias):
    """The database of most tests."""
    return sqlite_alias


@pytest.fixture
def paygent_in(alias):
    """Paygent's tables in *alias*."""
    with override_settings(PAYGENT={"DATABASE": alias}):
        yield alias


@pytest.fixture
def project(paygent_in):
    return services.project()


@pytest.fixture
def filled(tmp_path, django_database):
    """The project of a company that has been at it for weeks; each test has its own copy."""
    made = app_databases.add(**app_databases.sqlite(shutil.copy(_filled_file(), tmp_path / "filled.sqlite3")))
    with override_settings(PAYGENT={"DATABASE": made}):
        yield services.project()
    app_databases.remove(made)


@functools.cache
def _filled_file():
    path = app_databases.migrated_file().with_name("filled.sqlite3")
    shutil.copy(app_databases.migrated_file(), path)
    made = app_databases.add(**app_databases.sqlite(path))
    with override_settings(PAYGENT={"DATABASE": made}):
        admin_data.believable(calls=1800)
    with connections[made].cursor() as cursor:
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    app_databases.remove(made)
    return path


@pytest.fixture
def signed_in(django_database):
    """Sign somebody in: with the permissions given, or as the superuser."""

    def sign_in(*permissions, superuser=False, name=None):
        from django.contrib.auth.models import Permission, User

        name = name or f"u{uuid.uuid4().hex[:12]}"
        user, _ = User.objects.get_or_create(username=name, is_staff=True, is_superuser=superuser)
        for codename in permissions:
            user.user_permissions.add(
                Permission.objects.get(content_type__app_label="paygent_django", codename=codename)
            )
        client = Client()
        client.force_login(user)
        return client

    return sign_in


@pytest.fixture
def boss(signed_in):
    """The superuser's browser."""
    return signed_in(superuser=True, name="maya")


@pytest.fixture(autouse=True)
def _no_instance_is_left():
    """The middleware of a page makes one, which is not for the tests that follow."""
    yield
    pg = Paygent.get_instance()
    if pg is not None:
        pg.shutdown()


@atexit.register
def _clean_up():
    if app_databases.migrated_file.cache_info().currsize:
        shutil.rmtree(app_databases.migrated_file().parent, ignore_errors=True)
