"""Columns that keep a text as it is, on every database."""

from __future__ import annotations

import json
from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

# PostgreSQL stores no NUL. It is written as two signs, and the sign itself too, so that no two texts meet.
_SIGN = "\u2400"  # SYMBOL FOR NULL
_ESCAPED_NUL = _SIGN + _SIGN
_ESCAPED_SIGN = _SIGN + "\u2401"

MOMENT_MAX_US = 1 << 62  # stands for "for ever"


def escape(text: str) -> str:
    """*text* as every database can store it; different texts stay different."""
    if "\0" not in text and _SIGN not in text:
        return text
    return text.replace(_SIGN, _ESCAPED_SIGN).replace("\0", _ESCAPED_NUL)


def unescape(text: str) -> str:
    """What :func:`escape` was given."""
    if _SIGN not in text:
        return text
    pairs = text.split(_ESCAPED_SIGN)
    return _SIGN.join(pair.replace(_ESCAPED_NUL, "\0") for pair in pairs)


def to_json(value: Any) -> str | None:
    """JSON in ASCII; what JSON does not know is kept as text."""
    return None if value is None else json.dumps(value, default=str, skipkeys=True)


def from_json(value: str | None) -> Any:
    """What :func:`to_json` was given."""
    return None if value is None else json.loads(value)


class _ExactMixin(models.Field):
    """Compared byte by byte: MySQL and MariaDB else take "Ada" for "ada", and "ada " too."""

    def db_parameters(self, connection: BaseDatabaseWrapper) -> dict[str, Any]:
        """With a binary collation, where the database has others."""
        parameters: dict[str, Any] = super().db_parameters(connection)
        if connection.vendor == "mysql":
            is_mariadb = getattr(connection, "mysql_is_mariadb", False)
            parameters["collation"] = "utf8mb4_nopad_bin" if is_mariadb else "utf8mb4_0900_bin"
        return parameters

    def get_prep_value(self, value: Any) -> Any:
        """The text as it is stored."""
        value = super().get_prep_value(value)
        return escape(value) if isinstance(value, str) else value

    def from_db_value(self, value: Any, _expression: object, _connection: object) -> Any:
        """The text as it was given."""
        return unescape(value) if isinstance(value, str) else value


class ExactCharField(_ExactMixin, models.CharField):
    """A text of bounded length, kept and compared as it is; a NUL takes the room of two characters."""


class ExactTextField(_ExactMixin, models.TextField):
    """A text of any length, kept and compared as it is."""


class JsonTextField(models.TextField):
    """
    A JSON value as text.

    Read back as it was written on every database: a native JSON column reorders keys, rounds large numbers
    and refuses an escaped NUL.
    """

    def get_prep_value(self, value: Any) -> Any:
        """JSON text."""
        return to_json(value)

    def from_db_value(self, value: Any, _expression: object, _connection: object) -> Any:
        """The value."""
        return from_json(value)

    def to_python(self, value: Any) -> Any:
        """A serialised fixture holds text; everything else is the value itself."""
        return from_json(value) if isinstance(value, str) else value

    def value_to_string(self, obj: models.Model) -> str:
        """JSON text, for a fixture."""
        return to_json(self.value_from_object(obj)) or ""
