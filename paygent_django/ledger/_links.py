"""The link from a row to the user of the project's own whose id it has."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import router

from paygent_django.ledger._sql import Sql, chunks
from paygent_django.models import EndUser
from paygent_django.models.fields import escape

_USERS_PER_QUERY = 400


def is_here(alias: str) -> bool:
    """Whether the project has users of its own, in the database *alias*."""
    model = settings.AUTH_USER_MODEL
    if not apps.is_installed("django.contrib.auth") and model == "auth.User":
        return False
    return bool(router.db_for_read(apps.get_model(model)) == alias)


def link(sql: Sql, project_pk: int, users: Collection[str]) -> None:
    """Link those of *users* who are there; one that is linked already stays so."""
    model = apps.get_model(settings.AUTH_USER_MODEL)
    key, table = model._meta.pk, sql.table(EndUser)
    column = sql.quoted(key.column)
    for chunk in chunks(sorted(_keys(key, users).items()), _USERS_PER_QUERY):
        named = {key.get_db_prep_value(value, sql.connection): user for user, value in chunk}
        marks = ", ".join(["%s"] * len(named))
        query = f"SELECT {column} FROM {sql.table(model)} WHERE {column} IN ({marks})"  # noqa: S608  # our names
        found = [named[key.get_db_prep_value(row[0], sql.connection)] for row in sql.rows(query, list(named))]
        for user in found:
            sql.run(
                f"UPDATE {table} SET auth_user_id = %s "  # noqa: S608
                "WHERE project_id = %s AND external_user_id = %s AND auth_user_id IS NULL",
                (escape(user), project_pk, escape(user)),
            )


def _keys(key: Any, users: Collection[str]) -> dict[str, Any]:
    """The users whose id may be a key of the project's own users, with that key."""
    found = {}
    for user in users:
        try:
            value = key.to_python(user)
            key.run_validators(value)
        except ValidationError:
            continue
        if str(value) == user:
            found[user] = value
    return found
