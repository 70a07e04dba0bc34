"""Which database holds Paygent's tables, and which project of it is the app's own."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections

DEFAULT_PROJECT = "default"
APPS = frozenset({"paygent_django", "paygent_stripe"})


def database_alias() -> str:
    """``PAYGENT["DATABASE"]``, else the default database."""
    return str(_given("DATABASE") or DEFAULT_DB_ALIAS)


def project_name() -> str:
    """``PAYGENT["PROJECT"]``, else ``default``: the tenant that an embedded app is."""
    return str(_given("PROJECT") or DEFAULT_PROJECT)


def connection_kind(alias: str | None = None) -> str:
    """
    ``PAYGENT["CONNECTION"]``: a connection of the ledger's ``own``, or one ``shared`` with a ``TestCase``.

    Where nothing is said, it is shared inside a ``TestCase`` (also pytest-django's ``db``), which commits
    nothing that another connection could see.

    Raises:
        ValueError: Another word.
    """
    kind = _given("CONNECTION") or ("shared" if _is_in_testcase(alias or database_alias()) else "own")
    if kind not in ("own", "shared"):
        raise ValueError(f"PAYGENT['CONNECTION']={kind!r}: must be 'own' or 'shared'")
    return str(kind)


def _is_in_testcase(alias: str) -> bool:
    if alias not in connections:
        return False
    blocks = getattr(connections[alias], "atomic_blocks", ())
    return any(getattr(block, "_from_testcase", False) for block in blocks)


def webhooks_by() -> str:
    """
    ``PAYGENT["WEBHOOKS"]``: who delivers an embedded app's, a ``thread`` of its processes or a ``command``.

    Raises:
        ValueError: Another word.
    """
    word = _given("WEBHOOKS") or "thread"
    if word not in ("thread", "command"):
        raise ValueError(f"PAYGENT['WEBHOOKS']={word!r}: must be 'thread' or 'command'")
    return str(word)


def _given(name: str) -> Any:
    given: dict[str, Any] = getattr(settings, "PAYGENT", None) or {}
    return given.get(name)


class PaygentRouter:
    """
    Keeps Paygent's tables in ``PAYGENT["DATABASE"]``, and everything else out of a database of its own.

    Add ``"paygent_django.database.PaygentRouter"`` to ``DATABASE_ROUTERS``. Not needed where Paygent shares
    the default database.
    """

    def db_for_read(self, model: type[Any], **_: Any) -> str | None:
        """Paygent's rows come from its database."""
        return database_alias() if model._meta.app_label in APPS else None

    def db_for_write(self, model: type[Any], **_: Any) -> str | None:
        """Paygent's rows go to its database."""
        return database_alias() if model._meta.app_label in APPS else None

    def allow_relation(self, one: Any, other: Any, **_: Any) -> bool | None:
        """The link from a Paygent user to a project's user may cross databases: no constraint guards it."""
        labels = {one._meta.app_label, other._meta.app_label}
        return True if labels & APPS else None

    def allow_migrate(self, db: str, app_label: str, **_: Any) -> bool | None:
        """Paygent's tables are made in its database alone; one of its own holds nothing else."""
        if app_label in APPS:
            return db == database_alias()
        return False if db == database_alias() != DEFAULT_DB_ALIAS else None
