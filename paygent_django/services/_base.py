"""What the services share: their error, and a transaction with one user's row locked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, TypeVar

from django.db import connections, transaction
from django.db.models import Model

from paygent.ledger import Account
from paygent_django.database import database_alias
from paygent_django.ledger import DjangoLedger
from paygent_django.ledger._accounts import Accounts
from paygent_django.ledger._clock import clock_us
from paygent_django.ledger._sql import Sql
from paygent_django.models import EndUser, Project

M = TypeVar("M", bound=Model)


class ServiceError(ValueError):
    """
    What was asked for cannot be done; nothing has changed.

    ``field`` names the input that is at fault, ``code`` is ``invalid``, ``exists``, ``unknown``
    or ``overtaken``.
    """

    def __init__(self, field: str, message: str, code: str = "invalid") -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message
        self.code = code


def rows(model: type[M]) -> Any:
    """The rows of *model* in Paygent's database."""
    return model._default_manager.using(database_alias())


def ledger_of(project: Project) -> DjangoLedger:
    """The project's ledger on the calling thread's connection; call it outside of ``ATOMIC_REQUESTS``."""
    return DjangoLedger(database_alias(), project.name, connection="shared", project_pk=project.pk)


@contextlib.contextmanager
def writing(project_pk: int) -> Iterator[Accounts]:
    """A transaction on the calling thread's connection, at the ledger's time, nothing locked yet."""
    alias = database_alias()
    with transaction.atomic(using=alias):
        sql = Sql(connections[alias])
        try:
            accounts = Accounts(sql, project_pk)
            accounts.lock(())
            accounts.tell_time()
            yield accounts
        finally:
            sql.close()


@contextlib.contextmanager
def reading(project_pk: int) -> Iterator[Accounts]:
    """The calling thread's connection, at the ledger's time; nothing is locked."""
    sql = Sql(connections[database_alias()])
    try:
        accounts = Accounts(sql, project_pk)
        accounts.tell_time()
        yield accounts
    finally:
        sql.close()


@contextlib.contextmanager
def locked(user: EndUser) -> Iterator[tuple[Accounts, Account]]:
    """A transaction with the row of *user* locked, and what binds him now."""
    with writing(user.project_id) as accounts:
        accounts.hold((), [user.external_user_id])
        held = accounts.held(user.external_user_id)
        if held is None:
            raise ServiceError("user", "there is no such user any more", "unknown")
        yield accounts, held.account


def now_us() -> int:
    """The ledger's time."""
    sql = Sql(connections[database_alias()])
    try:
        return clock_us(sql)
    finally:
        sql.close()


def same_project(user: EndUser, **owned: Any) -> None:
    """
    Check that what is given to a user is of his project.

    Raises:
        ServiceError: It is another tenant's.
    """
    for field, row in owned.items():
        if row is not None and row.project_id != user.project_id:
            raise ServiceError(field, "there is no such thing in this project", "unknown")
