"""The stores, chosen by URL."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from paygent.ledger import Ledger
from paygent.ledgers._urls import safe_url, without_secrets

_POSTGRES = ("postgresql", "postgres")
_REDIS = ("redis", "rediss", "unix")
_KNOWN = "memory://, sqlite:///, postgresql://, redis://, rediss:// and unix:// (Redis on a socket)"


def open_ledger(url: str) -> Ledger:
    """
    Make the ledger that *url* names.

    ``memory://``, ``sqlite:///path/to/file.db``, ``postgresql://user:password@host/database``,
    ``redis://host:6379/0``, ``rediss://…`` (TLS), ``unix:///path/to/redis.sock``, and in a Django project
    ``django://`` or ``django://database``.

    Nothing is opened yet, so that a ledger that is away is found out where it is handled.

    Raises:
        ValueError: The URL cannot be meant, or its driver is not installed. No message quotes a password.
    """
    scheme, sign, rest = url.partition("://")
    if not sign:
        raise _unusable(url, f"it is not a URL; known are {_KNOWN}")
    if scheme == "memory":
        from paygent.ledgers.memory import MemoryLedger  # only what is used is loaded

        return MemoryLedger()
    if scheme == "sqlite":
        from paygent.ledgers.sqlite import SqliteLedger

        if not rest.startswith("/") or len(rest) < 2:
            raise _unusable(url, "a SQLite ledger is written sqlite:///path/to/file.db")
        return SqliteLedger(sqlite_path(rest))
    if scheme in _POSTGRES:
        return _open_postgres(url)
    if scheme in _REDIS:
        return _open_redis(url)
    if scheme == "django":
        ledger: Ledger = import_module("paygent_django.ledger").from_url(rest)
        return ledger
    raise _unusable(url, f"unknown scheme {scheme!r}; known are {_KNOWN}")


def sqlite_path(rest: str) -> Path:
    """The file of ``sqlite:///relative``, ``sqlite:////absolute`` or ``sqlite:///~/home``."""
    return Path(rest[1:]).expanduser()


def _open_postgres(url: str) -> Ledger:
    try:
        import psycopg
    except ImportError as error:
        raise _unusable(url, "it needs psycopg: pip install 'paygent[postgres]'") from error
    from paygent.ledgers.postgres import PostgresLedger

    try:
        return PostgresLedger(url)
    except (psycopg.Error, ValueError) as error:
        raise _unusable(url, without_secrets(str(error).strip(), url)) from None


def _open_redis(url: str) -> Ledger:
    try:
        import redis  # noqa: F401  # asked here, so that its absence is told in one sentence
    except ImportError as error:
        raise _unusable(url, "it needs redis: pip install 'paygent[redis]'") from error
    from paygent.ledgers.redis import RedisLedger

    try:
        return RedisLedger(url)
    except ValueError as error:
        raise _unusable(url, without_secrets(str(error), url)) from None


def _unusable(url: str, reason: str) -> ValueError:
    return ValueError(f"ledger={safe_url(url)!r}: {reason}")
