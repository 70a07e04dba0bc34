"""Who calls, and what the key may do."""

from __future__ import annotations

import hashlib
import time
from http import HTTPStatus
from typing import Any

from django.http import HttpRequest
from ninja.security import HttpBearer

from paygent_django import services
from paygent_django.api.problems import Problem
from paygent_django.database import database_alias
from paygent_django.ledger import DjangoLedger
from paygent_django.models import ApiKey, EndUser, Project


class Key(HttpBearer):
    """``Authorization: Bearer pg_live_…`` of a key that may do what *scope* names."""

    def __init__(self, scope: str) -> None:
        super().__init__()
        self.scope = scope

    def authenticate(self, request: HttpRequest, token: str) -> ApiKey | None:  # noqa: ARG002  # the base's
        """The row of the key; raises 403 for one that may not do this."""
        key = _known(token)
        if key is not None and self.scope not in key.scopes:
            raise Problem(HTTPStatus.FORBIDDEN, f"the key may not {self.scope}")
        return key


# One class of rights per name, so that the document of the API names them too.
reads = Key("read")
ingests = Key("ingest")
administers = Key("admin")


_KNOWN_S = 1.0  # a revoked key opens nothing after so long, in any process
_KNOWN_MAX = 1000
_known_keys: dict[tuple[str, bytes], tuple[float, ApiKey]] = {}


def _known(token: str) -> ApiKey | None:
    """The key, asked of the database at most once a second."""
    name, now_s = (database_alias(), hashlib.sha256(token.encode()).digest()), time.monotonic()
    found = _known_keys.get(name)
    if found is not None and now_s < found[0]:
        return found[1]
    key = services.authenticate(token)
    if key is not None:
        if len(_known_keys) >= _KNOWN_MAX:
            _known_keys.clear()
        _known_keys[name] = now_s + _KNOWN_S, key
    return key


def may(request: HttpRequest, right: Key) -> bool:
    """Whether the key of an admitted request has that right as well."""
    key: Any = request.auth
    return right.scope in key.scopes


def project_of(request: HttpRequest) -> Project:
    """The project that the key belongs to."""
    key: Any = request.auth
    project: Project = key.project
    return project


def ledger_of(request: HttpRequest) -> DjangoLedger:
    """The ledger of the key's project."""
    return services.ledger_of(project_of(request))


def user_of(request: HttpRequest, user_id: str) -> EndUser:
    """
    The user of that name in the key's project.

    Raises:
        Problem: 404.
    """
    user = services.find_user(project_of(request), user_id)
    if user is None:
        raise Problem(HTTPStatus.NOT_FOUND, "there is no such user", "user_id")
    return user
