"""The options of the web plugins: one set of names under every framework, checked when the app starts."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from paygent.web.formats import FORMATS, ErrorFormat
from paygent.web.upgrade import UpgradeUrl, checked_upgrade_url
from paygent.web.wording import Offer

# Called with the framework's request; a result of ``None`` means that there is none.
Finder = Callable[[Any], Any]
Exempt = str | Callable[[Any], Any]

_FINDERS = ("get_user_id", "get_session_id", "get_plan", "metadata", "on_limit")
_FLAGS = ("expose_amounts", "usage_headers", "enabled", "report_only")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebOptions:
    """
    What an app asks of its web plugin.

    Functions get the framework's request, plain or async, and are called at the first LLM call. An async one
    is awaited there by an async client, and waited for on threads; where a synchronous client stops the
    event loop itself, the log says so once, and from then on it is awaited when a request begins.

    Args:
        get_user_id: The user's id, or ``None`` for nobody; by default the framework's signed-in user.
        get_session_id: The session to count in; by default the ledger's own for each user.
        get_plan: The plan to put the user on, as ``plan=`` of :func:`paygent.paygent_context` does.
        metadata: What to note on each event of the request.
        anonymous: What becomes of calls that belong to nobody: ``"skip"`` leaves them to
            ``Paygent.init(unattributed=…)``, ``"block"`` refuses them with 401; a function names a user.
        exempt: Requests whose calls are not metered: paths (``"/health"``, with ``*`` as in ``"/static/*"``,
            ``"/internal/"`` for everything below), names of routes, functions of the request.
        upgrade_url: Where a blocked user can upgrade: ``https://…`` or a path of this app, with ``{plan}``
            for the present plan; or a function of the :class:`~paygent.core.errors.Refusal`.
        on_limit: Called with the request and the problem object; what it returns is answered instead. It
            may return the framework's response, or ``None`` for the usual answer.
        status_code: Status of a spent limit, 429 or 402.
        error_format: ``"problem"``, or the error bodies of the ``"openai"`` or ``"anthropic"`` API for apps
            that proxy them.
        expose_amounts: False keeps the numbers of the limit from the user.
        usage_headers: Whether responses tell the user's plan and usage in ``Paygent-…`` headers.
        enabled: False leaves the plugin out altogether.
        report_only: True lets a call beyond the limit run, and posts it.
        offers: What to suggest to a user of each plan, by the plan's name.
        defer_start_s: The longest that the start of a streamed response is held back, in seconds. ASGI only:
            a WSGI server sends no start before the first chunk.
        paygent: Arguments of ``Paygent.init`` for when the app itself has not called it.

    Raises:
        ValueError: An option cannot be right; the message names it.
        TypeError: An option is of another kind; the message names it.
    """

    get_user_id: Finder | None = None
    get_session_id: Finder | None = None
    get_plan: Finder | None = None
    metadata: Finder | None = None
    anonymous: Literal["skip", "block"] | Finder = "skip"
    exempt: tuple[Exempt, ...] = ()
    upgrade_url: UpgradeUrl = None
    on_limit: Callable[[Any, dict[str, Any]], Any] | None = None
    status_code: int = 429
    error_format: ErrorFormat = "problem"
    expose_amounts: bool = True
    usage_headers: bool = False
    enabled: bool = True
    report_only: bool = False
    offers: Mapping[str, Offer] = field(default_factory=dict)
    defer_start_s: float = 1.0
    paygent: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in _FINDERS:
            _check_callable(name, getattr(self, name), optional=True)
        for name in _FLAGS:
            _check_flag(name, getattr(self, name))
        if self.anonymous not in ("skip", "block") and not callable(self.anonymous):
            raise ValueError(f"anonymous={self.anonymous!r}: must be 'skip', 'block' or a function")
        if self.status_code not in (429, 402):
            raise ValueError(f"status_code={self.status_code!r}: must be 429 or 402")
        if self.error_format not in FORMATS:
            raise ValueError(
                f"error_format={self.error_format!r}: must be one of {', '.join(map(repr, FORMATS))}"
            )
        checked_upgrade_url(self.upgrade_url)
        _check_seconds("defer_start_s", self.defer_start_s)
        if self.paygent is not None and not isinstance(self.paygent, Mapping):
            raise TypeError(f"paygent must be a dict, not {type(self.paygent).__name__}")
        object.__setattr__(self, "exempt", _exemptions(self.exempt))
        object.__setattr__(self, "offers", _offers(self.offers))

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> WebOptions:
        """
        Build from keyword arguments, as a plugin was given them.

        Raises:
            TypeError: There is no option of that name; the message suggests the nearest.
        """
        for name in given:
            if name not in OPTION_NAMES:
                raise TypeError(unknown_option(name, OPTION_NAMES))
        return cls(**given)

    @classmethod
    def from_settings(
        cls,
        settings: Mapping[str, Any],
        *,
        prefix: str = "",
        overrides: Mapping[str, Any] | None = None,
        dotted_routes: bool = False,
    ) -> WebOptions:
        """
        Build from settings with upper-case names, such as Flask's config or Django's ``PAYGENT`` dict.

        Args:
            settings: Names that do not begin with *prefix* are left alone.
            prefix: As in ``"PAYGENT_"``; empty where every name is ours.
            overrides: Options by their own names; they win.
            dotted_routes: Names of routes hold dots here: no text in *exempt* is then taken for a path to a
                function.

        Returns:
            The options; dotted paths such as ``"accounts.billing.user_id"`` are imported where a function
            is meant.

        Raises:
            TypeError: There is no option of that name; the message suggests the nearest.
            ValueError: A value cannot be right, or a dotted path leads nowhere; the message names the option.
        """
        names = {f"{prefix}{name.upper()}": name for name in OPTION_NAMES}
        given: dict[str, Any] = {}
        for setting, value in settings.items():
            if setting in names:
                given[names[setting]] = value
            elif setting.startswith(prefix):
                raise TypeError(unknown_option(setting, names))
        given.update(overrides or {})
        paths = {name for name in given if not (dotted_routes and name == "exempt")}
        return cls.of({name: resolved(name, v) if name in paths else v for name, v in given.items()})


OPTION_NAMES = tuple(option.name for option in dataclasses.fields(WebOptions))


def unknown_option(name: str, names: Iterable[str]) -> str:
    """The message for an option that does not exist, with the nearest that does."""
    known = sorted(names)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
    return f"{name} is no option of Paygent; {hint}"


def resolved(name: str, value: Any) -> Any:
    """
    The value of option *name*, dotted paths imported where it takes a function.

    Raises:
        ValueError: The path leads nowhere; the message names the option.
    """
    if name == "exempt" and isinstance(value, (list, tuple)):
        return tuple(resolved(name, item) for item in value)
    takes_paths = name in _FINDERS or name in ("anonymous", "exempt", "upgrade_url")
    if not takes_paths or not isinstance(value, str) or not _is_dotted(name, value):
        return value
    module_name, _, attribute = value.rpartition(".")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{name}={value!r}: this dotted path leads nowhere ({error})") from error


def _is_dotted(name: str, value: str) -> bool:
    """Whether text is a path to a function; every text is, for an option that takes functions only."""
    if name in _FINDERS:
        return True
    return "." in value and all(part.isidentifier() for part in value.split("."))


def is_async(function: object) -> bool:
    """Whether calling *function* gives something to await: functions, and objects with ``__call__``."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  # an instance's own, which may be async
    )


def _check_callable(name: str, value: object, *, optional: bool) -> None:
    if not callable(value) and not (optional and value is None):
        raise TypeError(f"{name} must be a function, not {type(value).__name__}")


def _check_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")


def _check_seconds(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f"{name}={value!r}: must be a number of seconds, zero or more")


def _exemptions(given: object) -> tuple[Exempt, ...]:
    items = (given,) if isinstance(given, str) or callable(given) else given
    if not isinstance(items, Iterable):
        raise TypeError(f"exempt must be a list, not {type(given).__name__}")
    checked = tuple(items)
    for item in checked:
        if not callable(item) and not (isinstance(item, str) and item):
            raise TypeError(f"exempt: {item!r} is neither a path, nor the name of a route, nor a function")
    return checked


def _offers(given: object) -> dict[str, Offer]:
    if not isinstance(given, Mapping):
        raise TypeError(f"offers must be a dict, not {type(given).__name__}")
    return {name: _offer(name, offer) for name, offer in given.items()}


def _offer(plan: object, given: object) -> Offer:
    if isinstance(given, Offer):
        return given
    if isinstance(given, str):
        return Offer(given)
    if not isinstance(given, Mapping):
        raise TypeError(f"offers[{plan!r}] must be an Offer, a dict or a plan's name")
    try:
        return Offer(**given)
    except TypeError as error:
        raise TypeError(f"offers[{plan!r}]: {error}") from error
