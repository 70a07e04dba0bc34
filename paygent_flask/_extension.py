"""The extension: options and config, the wrapped app, and what views, templates and the command line get."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from flask import Blueprint, Flask, Response, current_app, g, has_request_context, request
from markupsafe import Markup

from paygent.client import Paygent as Core
from paygent.web.options import OPTION_NAMES, WebOptions
from paygent.web.plugin import WebPlugin
from paygent.web.request import RequestSlot, current_slot
from paygent.web.usage import me
from paygent_flask import _verbs
from paygent_flask._commands import commands
from paygent_flask._exchange import Environ, Exchange, exchange_of, response_of
from paygent_flask._meter import meter
from paygent_flask._refusals import FlaskPlugin, Refusals
from paygent_flask._users import bound, in_its_request, place_of, request_of, signed_in

NAME = "paygent"
PREFIX = "PAYGENT_"
ENABLED = "PAYGENT_ENABLED"
_INIT_NAMES = frozenset(inspect.signature(Core.init).parameters) - set(OPTION_NAMES)


class Paygent:
    """
    Attribute every LLM call of a request to its user, and answer a refused one.

    ::

        paygent = Paygent(app, upgrade_url="/upgrade?from={plan}")

    or, with an application factory, ``paygent = Paygent()`` and later ``paygent.init_app(app)``; one object
    may serve several apps. Covers the whole request, streamed bodies included. A refusal becomes the 429 of
    a plan that is spent (401 for nobody, 503 where the ledger is away); the app's own ``errorhandler`` for
    ``PaygentLimitExceeded`` replaces it. A request without an LLM call costs nothing, and its user is never
    looked up; by default that is Flask-Login's, else ``session["user_id"]``.

    Args:
        app: The app to set up now.
        options: Those of :class:`paygent.web.options.WebOptions`, and the arguments of
            :meth:`paygent.Paygent.init` for where the app has not called it itself. ``app.config`` may hold
            both in upper case, as in ``PAYGENT_UPGRADE_URL`` or ``PAYGENT_PLANS``; what is given here wins.
            They are read by :meth:`init_app`; ``PAYGENT_ENABLED`` may be changed at any time.

    Raises:
        TypeError: There is no option of that name, or its value is of another kind.
        ValueError: An option cannot be right; the message names it.
    """

    exempt = staticmethod(_verbs.exempt)
    tag = staticmethod(_verbs.tag)
    require_budget = staticmethod(_verbs.require_budget)

    def __init__(self, app: Flask | None = None, **options: Any) -> None:
        self._options = options
        self._plugin = _plugin({}, options)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """
        Set up *app*; a second time changes nothing, with a warning.

        Raises:
            TypeError: There is no option of that name, or its value is of another kind.
            ValueError: An option cannot be right; the message names it.
        """
        if NAME in app.extensions:
            warnings.warn(f"Paygent is set up twice for {app.name!r}: the first one stays", stacklevel=2)
            return
        self._plugin = _plugin(app.config, self._options)
        app.extensions[NAME] = AppPaygent(app, self._plugin)

    @property
    def pg(self) -> Core:
        """
        The process's :class:`paygent.Paygent`; made now, from the options, where the app has made none.

        Raises:
            RuntimeError: It could not be made; the log says why.
        """
        return _running(self._plugin)

    def blueprint(self, url_prefix: str = "/paygent") -> Blueprint:
        """Return a blueprint with ``GET /me``: plan, usage and limit of the signed-in user, as JSON."""
        blueprint = Blueprint(NAME, __name__, url_prefix=url_prefix)
        blueprint.add_url_rule("/me", "me", _me)
        return blueprint


class AppPaygent:
    """What the extension does for one app: ``app.extensions["paygent"]``."""

    def __init__(self, app: Flask, plugin: WebPlugin) -> None:
        self.plugin = plugin
        self.refusals = Refusals(app, plugin)
        self._config = app.config
        self._serve = app.wsgi_app
        app.config[ENABLED] = plugin.options.enabled
        app.wsgi_app = self.wsgi_app  # type: ignore[method-assign]  # as Flask documents it
        names = {NAME: _SlotOfRequest(), "__doc__": app.app_ctx_globals_class.__doc__}
        namespace: Any = type("Globals", (app.app_ctx_globals_class,), names)
        app.app_ctx_globals_class = namespace
        app.jinja_env.globals["paygent_meter"] = paygent_meter
        app.cli.add_command(commands(lambda: self.pg))

    @property
    def pg(self) -> Core:
        """See :attr:`Paygent.pg`."""
        return _running(self.plugin)

    def wsgi_app(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Serve one request."""
        if not self._config[ENABLED]:
            return self._serve(environ, start_response)
        return Exchange(self.refusals, environ, start_response).serve(self._serve)


class _SlotOfRequest:
    """
    ``g.paygent``: the slot of the running request; ``None`` outside of one.

    No request pays for it before it is read. An app that keeps a value of its own there sees that instead.
    Where the extension is switched off there is a slot all the same, so that views may go on reading it.
    """

    def __get__(self, namespace: Any, owner: type) -> RequestSlot | None:
        if not has_request_context():
            return current_slot()
        exchange = exchange_of(request.environ)
        slot = current_slot() if exchange is None else exchange.slot or current_slot()
        if slot is None and namespace is not None:
            slot = namespace.paygent = RequestSlot(current_app.extensions[NAME].plugin, None)
        return slot


# --- what views and templates get -------------------------------------------------------------------------


def _me() -> Response:
    state: AppPaygent = current_app.extensions[NAME]
    return response_of(state.plugin.me(_user_id()))


def paygent_meter() -> Markup:
    """
    Show in a template what the signed-in user has used of his plan.

    As in ``{{ paygent_meter() }}``.
    It is empty where nobody is signed in, and where no ledger can be asked.
    """
    plugin: WebPlugin = current_app.extensions[NAME].plugin
    user_id, pg = _user_id(), plugin.pg()
    if user_id is None or pg is None:
        return Markup()
    shown = me(pg, user_id, expose_amounts=plugin.options.expose_amounts)
    return Markup() if shown is None else meter(shown)


def _user_id() -> str | None:
    slot: RequestSlot | None = g.paygent
    return None if slot is None else slot.user_id


# --- options ----------------------------------------------------------------------------------------------


def _plugin(config: Mapping[str, Any], given: Mapping[str, Any]) -> FlaskPlugin:
    return FlaskPlugin(
        bound(_options(config, given)),
        default_user=in_its_request(signed_in),
        place_of=place_of,
        request_of=request_of,
    )


def _options(config: Mapping[str, Any], given: Mapping[str, Any]) -> WebOptions:
    """The options of an app, from its config and from what the extension was *given*, which wins."""
    ours = {name: value for name, value in config.items() if name.startswith(PREFIX)}
    for_core = {
        name: ours.pop(PREFIX + name.upper()) for name in _INIT_NAMES if PREFIX + name.upper() in ours
    }
    for_core.update({name: value for name, value in given.items() if name in _INIT_NAMES})
    overrides = {name: value for name, value in given.items() if name not in _INIT_NAMES}
    if for_core:
        overrides["paygent"] = {**(overrides.get("paygent") or ours.get("PAYGENT_PAYGENT") or {}), **for_core}
    return WebOptions.from_settings(ours, prefix=PREFIX, overrides=overrides, dotted_routes=True)


def _running(plugin: WebPlugin) -> Core:
    pg = Core.get_instance() or plugin.pg()
    if pg is None:
        raise RuntimeError("Paygent is not running: Paygent.init() failed, or it was shut down; see the log")
    return pg
