"""API keys: made, shown once, recognised and revoked."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from typing import NamedTuple

from django.db.models import Q

from paygent_django.models import ApiKey, Project
from paygent_django.models.moments import now_us
from paygent_django.services._base import ServiceError, rows

SCOPES = ("read", "ingest", "admin")
_PREFIXES = {True: "pg_live_", False: "pg_test_"}
_LOOKUP_LENGTH = len("pg_live_") + 12
_SECRET_LENGTH_MAX = 200
_SECRET_LENGTH_MIN = 24
_NOTED_EVERY_US = 60_000_000


class NewKey(NamedTuple):
    """A key that was just made. ``secret`` is nowhere else: it cannot be shown again."""

    row: ApiKey
    secret: str

    def __repr__(self) -> str:
        """Without the secret: a log is no place for it."""
        return f"NewKey({self.row})"


def create_key(
    project: Project, name: str = "", *, scopes: Iterable[str] = ("read", "ingest"), live: bool = True
) -> NewKey:
    """
    Make a key.

    Raises:
        ServiceError: A scope is unknown, or there is none.
    """
    secret = _PREFIXES[live] + secrets.token_urlsafe(32)
    return NewKey(_stored(project, name, secret, scopes), secret)


def adopt_key(project: Project, secret: str, scopes: Iterable[str] = SCOPES, *, name: str = "") -> ApiKey:
    """
    Have a key that somebody else chose open *project*; one that does already stays as it is.

    Raises:
        ServiceError: It cannot be a key (code ``invalid``), or it was revoked, opens another project, or
            begins as another key does (code ``exists``). The message never holds the key.
    """
    is_one = secret.startswith(tuple(_PREFIXES.values())) and secret.isascii() and secret.isprintable()
    if not is_one or not _SECRET_LENGTH_MIN <= len(secret) <= _SECRET_LENGTH_MAX:
        lengths = f"{_SECRET_LENGTH_MIN} to {_SECRET_LENGTH_MAX}"
        raise ServiceError("key", f"must begin with pg_live_ or pg_test_, and have {lengths} characters")
    row: ApiKey | None = rows(ApiKey).filter(lookup=secret[:_LOOKUP_LENGTH]).select_related("project").first()
    if row is None:
        return _stored(project, name, secret, scopes)
    if not hmac.compare_digest(_digest(secret), row.digest):
        raise ServiceError("key", "begins as another key does: choose a random one", "exists")
    if row.is_revoked or row.project_id != project.pk:
        raise ServiceError("key", "was revoked" if row.is_revoked else "opens another project", "exists")
    return row


def authenticate(secret: str) -> ApiKey | None:
    """
    The key that *secret* is, with its project; ``None`` for one that is unknown or revoked.

    Compared in constant time. When it was last used is noted once a minute.
    """
    if len(secret) > _SECRET_LENGTH_MAX or not secret.isascii() or "\0" in secret:
        return None
    row: ApiKey | None = rows(ApiKey).select_related("project").filter(lookup=secret[:_LOOKUP_LENGTH]).first()
    is_equal = hmac.compare_digest(_digest(secret), row.digest if row is not None else _digest(""))
    if row is None or not is_equal or row.is_revoked:
        return None
    moment_us = now_us()
    unnoted = Q(last_used_us__isnull=True) | Q(last_used_us__lt=moment_us - _NOTED_EVERY_US)
    if row.last_used_us is None or row.last_used_us < moment_us - _NOTED_EVERY_US:
        rows(ApiKey).filter(unnoted, pk=row.pk).update(last_used_us=moment_us)
    return row


def revoke(key: ApiKey) -> None:
    """Have the key open nothing from now on; its row stays for the record."""
    rows(ApiKey).filter(pk=key.pk, revoked_us__isnull=True).update(revoked_us=now_us())


def _stored(project: Project, name: str, secret: str, scopes: Iterable[str]) -> ApiKey:
    held = set(scopes)
    if not held or not held <= set(SCOPES):
        raise ServiceError("scopes", f"must be some of {', '.join(SCOPES)}")
    made: ApiKey = rows(ApiKey).create(
        project=project,
        name=name[:200],
        lookup=secret[:_LOOKUP_LENGTH],
        digest=_digest(secret),
        is_live=secret.startswith(_PREFIXES[True]),
        **{f"can_{scope}": scope in held for scope in SCOPES},
    )
    return made


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
