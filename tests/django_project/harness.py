"""
One Django for the whole test process.

A test folder begins its ``conftest.py`` with::

    from django_project import harness

    harness.set_up()

and takes the database with the fixtures ``django_database`` (tables, nothing else promised about their rows)
and ``django_unblocked``, imported from here.
"""

import atexit
import functools
import os
import shutil
from collections.abc import Iterator

import pytest


@functools.cache
def set_up() -> None:
    """Configure Django with the shared settings, once."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "django_project.settings"
    import django
    from django.conf import settings

    django.setup()
    atexit.register(shutil.rmtree, settings.FOLDER, ignore_errors=True)


@functools.cache
def migrated() -> None:
    """Create the tables, once."""
    from django.core.management import call_command

    call_command("migrate", verbosity=0, run_syncdb=True)


@pytest.fixture(scope="session", autouse=True)
def django_unblocked(request: pytest.FixtureRequest) -> Iterator[None]:
    """The database is open to all tests here, also where pytest-django is installed, which closes it."""
    if not request.config.pluginmanager.hasplugin("django"):
        yield
        return
    with request.getfixturevalue("django_db_blocker").unblock():
        yield


@pytest.fixture
def django_database(django_unblocked: None) -> Iterator[None]:
    """The tables of all installed apps, in a file of this process."""
    from django.db import connections

    migrated()
    yield
    connections.close_all()
