"""
System checks of the settings and the middleware, run by ``manage.py check`` and before the server starts.

| id | what is wrong |
|---|---|
| ``paygent.E001`` | ``PAYGENT`` is no dict |
| ``paygent.E002`` | a setting that does not exist |
| ``paygent.E003`` | a value that cannot be right |
| ``paygent.E004`` | ``DATABASE`` names no database of the project |
| ``paygent.E005`` | ``ATOMIC_REQUESTS`` on it, and each transaction locks the file from its first moment |
| ``paygent.W001`` | the middleware is missing |
| ``paygent.W002`` | the middleware stands before ``AuthenticationMiddleware`` |
| ``paygent.W003`` | the middleware stands before a CORS middleware, which could not open the 429 to scripts |
| ``paygent.W004`` | the middleware is there twice |
| ``paygent.W005`` | ``ATOMIC_REQUESTS`` on the SQLite database that also holds the ledger |
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004  # Django's name
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS

from paygent.plans import read_plans
from paygent_django import conf
from paygent_django.database import connection_kind, webhooks_by

MIDDLEWARE = "paygent_django.middleware.PaygentMiddleware"
AUTHENTICATION = "AuthenticationMiddleware"
CORS = "CorsMiddleware"


@register(Tags.compatibility)
def check_settings(**_: Any) -> list[CheckMessage]:
    """Check the dict ``PAYGENT``."""
    given = getattr(settings, conf.SETTING, {})
    if not isinstance(given, Mapping):
        hint = "Write PAYGENT = {'UPGRADE_URL': '/upgrade', …}."
        return [Error(f"PAYGENT must be a dict, not {type(given).__name__}.", hint=hint, id="paygent.E001")]
    unknown: list[CheckMessage] = [_unknown(str(name)) for name in given if name not in conf.KNOWN_NAMES]
    return unknown or [*_bad_values()] or [*_own_ledger(given)]


@register(Tags.compatibility)
def check_middleware(**_: Any) -> list[CheckMessage]:
    """Check where the middleware stands in ``MIDDLEWARE``."""
    places = [place for place, path in enumerate(settings.MIDDLEWARE) if path == MIDDLEWARE]
    if not places:
        message = "PaygentMiddleware is not in MIDDLEWARE: no LLM call is attributed to a user."
        hint = f"Add {MIDDLEWARE!r} after AuthenticationMiddleware."
        return [Warning(message, hint=hint, id="paygent.W001")]
    return [*_misplaced(places)]


def _unknown(name: str) -> Error:
    close = difflib.get_close_matches(name.upper(), sorted(conf.KNOWN_NAMES), n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(sorted(conf.KNOWN_NAMES))}."
    return Error(f"PAYGENT has no setting {name!r}.", hint=hint, id="paygent.E002")


def _bad_values() -> Iterator[CheckMessage]:
    try:
        given = conf.options().paygent or {}
        if given.get("plans") is not None:
            read_plans(given["plans"])
        connection_kind()
        webhooks_by()
    except (ImproperlyConfigured, ValueError, OSError) as error:
        yield Error(str(error), hint="See the table of options in the documentation.", id="paygent.E003")


def _own_ledger(given: Mapping[str, Any]) -> Iterator[CheckMessage]:
    """What is wrong with the database that is to hold the ledger, if it is one of the project's."""
    if not str((conf.options().paygent or {}).get("ledger")).startswith(conf.OWN_LEDGER):
        return
    alias = given.get("DATABASE") or DEFAULT_DB_ALIAS
    database = settings.DATABASES.get(alias)
    if database is None:
        hint = f"There are: {', '.join(map(repr, settings.DATABASES))}."
        yield Error(f"PAYGENT['DATABASE']={alias!r} is not in DATABASES.", hint=hint, id="paygent.E004")
    elif str(database.get("ENGINE")).endswith("sqlite3") and database.get("ATOMIC_REQUESTS"):
        hint = "Use PostgreSQL, or give Paygent a file of its own: PAYGENT['DATABASE'] and PaygentRouter."
        mode = str((database.get("OPTIONS") or {}).get("transaction_mode", "")).upper()
        if mode in ("IMMEDIATE", "EXCLUSIVE"):
            message = f"With transaction_mode {mode} every view locks the ledger out until it ends."
            yield Error(message, hint=hint, id="paygent.E005")
            return
        message = "On SQLite a view that has written makes the ledger wait until its transaction ends."
        yield Warning(message, hint=hint, id="paygent.W005")


def _misplaced(places: Sequence[int]) -> Iterator[CheckMessage]:
    if len(places) > 1:
        hint = "Remove all but the last."
        yield Warning("PaygentMiddleware is in MIDDLEWARE more than once.", hint=hint, id="paygent.W004")
    after = settings.MIDDLEWARE[places[-1] + 1 :]
    for name, number, why in (
        (AUTHENTICATION, 2, "it belongs after it, where request.user exists"),
        (CORS, 3, "scripts of other origins cannot read its answers"),
    ):
        found = next((path for path in after if path.endswith(name)), None)
        if found is not None:
            message = f"PaygentMiddleware stands before {name}: {why}."
            yield Warning(message, hint=f"Move it below {found!r}.", id=f"paygent.W00{number}")
