"""What a server needs before its first request: tables, a project, an admin's login, a key."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import Error, connections, transaction

from paygent.ledgers._lock import FileLock
from paygent_django import services
from paygent_django.database import database_alias
from paygent_django.models import ApiKey
from paygent_django.server.environment import ADMIN_PASSWORD, BOOTSTRAP_KEY, DATABASE, SetupError
from paygent_django.server.logs import without_secrets

ADMIN = "admin"
_LOCK = 0x7061_7967  # of PostgreSQL's advisory locks: one server at a time sets up


class Made(NamedTuple):
    """What was made just now, to be said once; ``None``: it was there, or its owner chose it himself."""

    admin_password: str | None
    key: str | None


def prepare() -> Made:
    """
    Migrate, and make what is missing; several servers may start at the same moment.

    Raises:
        SetupError: ``PAYGENT_BOOTSTRAP_KEY`` cannot be a key, or the database cannot be used.
    """
    try:
        return _prepared(database_alias())
    except (OSError, Error) as error:
        raise _unusable(error) from error


def why_not() -> SetupError | None:
    """Why a command cannot work on this database; ``None``: it is set up."""
    try:
        tables = connections[database_alias()].introspection.table_names()
    except Error as error:
        return _unusable(error)
    if ApiKey._meta.db_table in tables:
        return None
    return SetupError(
        "the database has no tables yet: start paygent serve once, or run paygent manage migrate"
    )


def _unusable(error: Exception) -> SetupError:
    said = without_secrets(" ".join(str(error).split()))  # PostgreSQL's reasons have lines
    return SetupError(f"{DATABASE} (--database) cannot be used: {said}")


def _prepared(alias: str) -> Made:
    with _alone(alias):
        call_command("migrate", database=alias, interactive=False, verbosity=0)
        with transaction.atomic(using=alias):
            return Made(_admin(alias), _key())


def _admin(alias: str) -> str | None:
    users = get_user_model()._default_manager.db_manager(alias)  # how Django names it
    if users.filter(is_superuser=True).exists():
        return None
    given = os.environ.get(ADMIN_PASSWORD)
    password = given or secrets.token_urlsafe(12)
    users.create_superuser(ADMIN, password=password)
    return None if given else password


def _key() -> str | None:
    project = services.project()
    given = os.environ.get(BOOTSTRAP_KEY)
    if given:
        _adopt(given)
        return None
    if ApiKey.objects.using(database_alias()).filter(project=project).exists():
        return None
    return services.create_key(project, "first key", scopes=services.SCOPES).secret


def _adopt(secret: str) -> None:
    """Have the key that a script or a container chose open the first project."""
    try:
        services.adopt_key(services.project(), secret, name=BOOTSTRAP_KEY)
    except services.ServiceError as error:
        raise SetupError(f"{BOOTSTRAP_KEY} {error.message}") from error


@contextlib.contextmanager
def _alone(alias: str) -> Iterator[None]:
    """While this server sets up, others wait."""
    connection = connections[alias]
    if connection.vendor == "sqlite":
        path = Path(str(connection.settings_dict["NAME"]))
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock(Path(f"{path}.setup.lock"))
        try:
            with lock:
                yield
        finally:
            lock.close()
        return
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
        try:
            yield
        finally:
            if connection.vendor == "postgresql":
                cursor.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])
