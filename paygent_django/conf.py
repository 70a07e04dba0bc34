"""
The settings: one dict ``PAYGENT``, read when first needed and again when a test overrides it.

::

    PAYGENT = {
        "PLANS": BASE_DIR / "plans.toml",  # arguments of Paygent.init, in capitals
        "UPGRADE_URL": "/upgrade?from={plan}",  # options of the web plugins, in capitals
        "GET_USER_ID": "accounts.billing.user_id",
    }

The ledger is the project's own database, unless ``LEDGER``, ``DB_PATH`` or an API key says otherwise;
``DATABASE``, ``CONNECTION``, ``PROJECT`` and ``WEBHOOKS`` are for that one.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver

from paygent.client import Paygent
from paygent.web.exemptions import Place
from paygent.web.options import OPTION_NAMES, WebOptions, unknown_option
from paygent_django import _users
from paygent_django._slot import DjangoPlugin

SETTING = "PAYGENT"
INIT_NAMES = {name.upper(): name for name in inspect.signature(Paygent.init).parameters}
STRIPE_NAMES = frozenset({"STRIPE_WEBHOOK_SECRET", "STRIPE_PLANS", "STRIPE_USER", "STRIPE_STATUSES"})
OWN_NAMES = STRIPE_NAMES | {"CONNECTION", "DATABASE", "PROJECT", "WEBHOOKS"}  # read where they are used
OWN_LEDGER = "django://"
KNOWN_NAMES = OWN_NAMES | {*INIT_NAMES, *(name.upper() for name in OPTION_NAMES if name != "paygent")}
_FINDERS = ("get_user_id", "get_session_id", "get_plan", "metadata", "anonymous")


@functools.cache
def options() -> WebOptions:
    """
    Return the options of the settings, with what ``Paygent.init`` is to be given in ``paygent``.

    Raises:
        ImproperlyConfigured: A setting is unknown or cannot be right; the message names it.
    """
    given = getattr(settings, SETTING, {})
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured(f"{SETTING} must be a dict, not {type(given).__name__}")
    for name in given:
        if name not in KNOWN_NAMES:
            raise ImproperlyConfigured(f"{SETTING}: {unknown_option(str(name), KNOWN_NAMES)}")
    web = {name: value for name, value in given.items() if name not in {*INIT_NAMES, *OWN_NAMES}}
    init = {INIT_NAMES[name]: value for name, value in given.items() if name in INIT_NAMES}
    if not (init.keys() & {"ledger", "db_path", "api_key"} or os.environ.get("PAYGENT_API_KEY")):
        project = given.get("PROJECT")
        init["ledger"] = f"{OWN_LEDGER}/{quote(str(project), safe='')}" if project else OWN_LEDGER
    try:
        return WebOptions.from_settings(web, overrides={"paygent": init})
    except (TypeError, ValueError) as error:
        raise ImproperlyConfigured(f"{SETTING}: {error}") from error


@functools.cache
def plugin() -> DjangoPlugin:
    """Return the plugin of this process, built from the settings; raises as :func:`options` does."""
    return DjangoPlugin(_for_any_thread(options()), default_user=_users.default_user, place_of=_place_of)


def paygent() -> Paygent | None:
    """
    Return the process's Paygent: the app's own, else one made from the settings now.

    For code outside of requests: commands, workers, the shell. ``None`` where it cannot be made; the log
    says why.
    """
    return plugin().pg()


def _for_any_thread(given: WebOptions) -> WebOptions:
    """The options, with finders that may use the database wherever an LLM call is made, and be async."""
    finders = {name: getattr(given, name) for name in _FINDERS}
    wrapped: dict[str, Any] = {
        name: _users.anywhere(find) for name, find in finders.items() if callable(find)
    }
    return dataclasses.replace(given, **wrapped)


def _place_of(request: Any) -> Place:
    match = request.resolver_match
    return Place(request.path, None if match is None else match.view_name)


@receiver(setting_changed)
def _forget(*, setting: str, **_: Any) -> None:
    if setting == SETTING:
        options.cache_clear()
        plugin.cache_clear()
