"""Plans and their versions, written within one transaction."""

from __future__ import annotations

from typing import Any

from paygent.ledgers._rows import plan_key
from paygent_django.ledger._accounts import Accounts
from paygent_django.ledger._sql import Sql
from paygent_django.models import Plan, PlanVersion
from paygent_django.models.fields import unescape

SAID = ("label", "price_nano", "currency", "interval", "rank")
UNSAID: dict[str, Any] = {"label": "", "price_nano": None, "currency": "USD", "interval": "month", "rank": 0}


def put(
    accounts: Accounts, name: str, config: str, said: dict[str, Any] | None = None, *, created_by: str = ""
) -> int | None:
    """
    Register a plan: other content is a new version, equal content changes nothing.

    Args:
        said: What besides the config a version says (see ``SAID``); what is left out stays.

    Returns:
        The number of the new version, ``None`` where there is none.
    """
    sql = accounts.sql
    plan_pk = accounts.plan_id(name)
    _lock(sql, plan_pk)
    before = _current(sql, plan_pk)
    key = plan_key(config)
    version = {**UNSAID, **(before or {}), **(said or {})}
    if before is not None and before["key"] == key and all(before[part] == version[part] for part in SAID):
        return None
    number = 1 + (before["number"] if before else 0)
    columns = ("plan_id", "number", "key", "config", "created_us", "created_by", *SAID)
    values = (plan_pk, number, key, config, accounts.now_us, created_by, *(version[part] for part in SAID))
    sql.insert(PlanVersion, columns, [values])
    made = sql.row(
        f"SELECT id FROM {sql.table(PlanVersion)} WHERE plan_id = %s AND number = %s",  # noqa: S608
        (plan_pk, number),
    )
    assert made is not None
    sql.run(f"UPDATE {sql.table(Plan)} SET current_id = %s WHERE id = %s", (made[0], plan_pk))  # noqa: S608
    return number


def configured(sql: Sql, project_pk: int) -> dict[str, str]:
    """Every configured plan by name, as JSON."""
    query = (
        f"SELECT p.name, v.config FROM {sql.table(Plan)} p "  # noqa: S608  # names of our own
        f"JOIN {sql.table(PlanVersion)} v ON v.id = p.current_id WHERE p.project_id = %s"
    )
    return dict(sorted((unescape(name), config) for name, config in sql.rows(query, (project_pk,))))


def locked_number(accounts: Accounts, name: str) -> int:
    """The number of a plan's version, 0 without one; nobody saves another until the transaction ends."""
    plan_pk = accounts.plan_id(name)
    _lock(accounts.sql, plan_pk)
    current = _current(accounts.sql, plan_pk)
    return 0 if current is None else int(current["number"])


def _lock(sql: Sql, plan_pk: int) -> None:
    if sql.vendor != "sqlite":
        sql.rows(f"SELECT id FROM {sql.table(Plan)} WHERE id = %s FOR UPDATE", (plan_pk,))  # noqa: S608


def _current(sql: Sql, plan_pk: int) -> dict[str, Any] | None:
    names = ("number", "key", *SAID)
    query = (
        f"SELECT {', '.join(f'v.{sql.quoted(name)}' for name in names)} FROM {sql.table(PlanVersion)} v "  # noqa: S608
        f"JOIN {sql.table(Plan)} p ON p.current_id = v.id WHERE p.id = %s"
    )
    row = sql.row(query, (plan_pk,))
    return None if row is None else dict(zip(names, row, strict=True))
