"""
What there may be to tell of, noted in the transaction in which it happens, where a project has an address.

Notes are only appended, and who tells removes them: no process waits for another one, and what was committed
is told of whoever dies.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from paygent_django.ledger._sql import Sql, chunks
from paygent_django.models import EndUser, GateEvent, WebhookEndpoint, WebhookNews

_ROWS_PER_STATEMENT = 500


def of_users(sql: Sql, project_pk: int, user_pks: Collection[int]) -> None:
    """These users have used more."""
    for chunk in chunks(sorted(user_pks), _ROWS_PER_STATEMENT):
        named, values = sql.among("u.id", chunk)
        sql.run(
            f"INSERT INTO {sql.table(WebhookNews)} (user_id) SELECT u.id FROM {sql.table(EndUser)} u "  # noqa: S608
            f"WHERE {named} AND {_is_heard(sql)}",
            (*values, project_pk),
        )


def of_gates(sql: Sql, project_pk: int, gate_ids: Sequence[str]) -> None:
    """These decisions, whose ids are as they are stored, were made."""
    for chunk in chunks(gate_ids, _ROWS_PER_STATEMENT):
        named, values = sql.of_project(GateEvent, "gate_id", project_pk, chunk, "g")
        sql.run(
            f"INSERT INTO {sql.table(WebhookNews)} (user_id, gate_pk) "  # noqa: S608  # names of our own
            f"SELECT g.user_id, g.id FROM {sql.table(GateEvent)} g WHERE {named} AND {_is_heard(sql)}",
            (*values, project_pk),
        )


def _is_heard(sql: Sql) -> str:
    """A condition with one parameter, the project: it has an address that is switched on."""
    where = "WHERE w.project_id = %s AND w.is_enabled"
    return f"EXISTS (SELECT 1 FROM {sql.table(WebhookEndpoint)} w {where})"  # noqa: S608  # names of our own
