"""The row of a project."""

from __future__ import annotations

import uuid

from paygent_django.ledger._sql import Sql
from paygent_django.models import Project
from paygent_django.models.fields import escape
from paygent_django.models.moments import now_us


def project_pk(sql: Sql, name: str) -> int:
    """The key of the project of that name, which is made if need be."""
    query = f"SELECT id FROM {sql.table(Project)} WHERE name = %s"  # noqa: S608  # names of our own
    row = sql.row(query, (escape(name),))
    if row is None:
        values = (sql.stored(Project, "uuid", uuid.uuid4()), escape(name), "{}", now_us(), 0)
        columns = ("uuid", "name", "settings", "created_us", "pruned_before_us")
        sql.insert_new(Project, columns, [values])
        row = sql.row(query, (escape(name),))
    assert row is not None
    return int(row[0])
