"""What went wrong in the database, and whether another try helps."""

from __future__ import annotations

import enum
import sqlite3
from typing import Any

from django.db.utils import IntegrityError, InterfaceError, InternalError, OperationalError

from paygent.ledger import LedgerError

_POSTGRES_CROSSED = ("40P01", "40001", "23505")  # deadlock, serialization failure, two who wrote the same row
_POSTGRES_WAITED = ("55P03", "57014")  # the lock is taken, the statement was cancelled
_POSTGRES_NO_TABLE = "42P01"
_MYSQL_CROSSED = (1213, 1062)
_MYSQL_WAITED = (1205, 3572)
_MYSQL_NO_TABLE = 1146


class OvertakenError(LedgerError):
    """What this transaction has found was changed by another one before it could be locked."""


class Fault(enum.Enum):
    """A kind of fault of the outside world; what is none of these is a fault of ours."""

    CROSSED = "another transaction was in the way"
    WAITED = "the rows are locked"
    LOST = "the connection is lost"
    UNMIGRATED = "the tables are missing: run manage.py migrate"
    OTHER = "the database failed"

    @classmethod
    def of(cls, error: BaseException) -> Fault | None:
        """What kind *error* is of; ``None``: it would end the same way each time."""
        if isinstance(error, OvertakenError):
            return cls.CROSSED
        code = _code(error)
        if code in (_POSTGRES_NO_TABLE, _MYSQL_NO_TABLE) or "no such table" in str(error):
            return cls.UNMIGRATED
        if isinstance(error, IntegrityError):
            is_double = code in (*_POSTGRES_CROSSED, *_MYSQL_CROSSED)
            return cls.CROSSED if is_double or "FOREIGN KEY" in str(error).upper() else None
        if isinstance(error, (OperationalError, InterfaceError)):
            return cls._of_operation(error, code)
        return cls.OTHER if isinstance(error, (InternalError, OSError)) else None

    @classmethod
    def _of_operation(cls, error: BaseException, code: Any) -> Fault:
        if code in (*_POSTGRES_CROSSED, *_MYSQL_CROSSED):
            return cls.CROSSED
        if code in (*_POSTGRES_WAITED, *_MYSQL_WAITED):
            return cls.WAITED
        if isinstance(error.__cause__, sqlite3.Error):
            return cls.WAITED if "locked" in str(error) else cls.OTHER
        return cls.LOST


def raised(fault: Fault | None, error: BaseException, alias: str) -> None:
    """
    Raise what the engine expects of a store that cannot be asked.

    Raises:
        LedgerError: *error* is of the outside world.
    """
    if fault is not None and not isinstance(error, (IntegrityError, LedgerError)):
        raise LedgerError(f"database {alias!r}: {fault.value} ({error})".strip()) from error


def _code(error: BaseException) -> Any:
    """The SQLSTATE of PostgreSQL or the number of MySQL."""
    cause = error.__cause__
    state = getattr(cause, "sqlstate", None)
    if state is not None:
        return state
    arguments = getattr(cause, "args", ())
    return arguments[0] if arguments and isinstance(arguments[0], int) else None
