"""Which requests are none of Paygent's business."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from fnmatch import translate
from typing import Any, NamedTuple

from paygent.web.options import Exempt

log = logging.getLogger("paygent")

PATHS_MAX = 4096
PATH_LENGTH_MAX = 256


class Place(NamedTuple):
    """Where a request goes: its path, and the name of its route if it has one."""

    path: str
    route: str | None = None


class Exemptions:
    """
    The option ``exempt`` of one app. What is said of a path or a route is decided once and remembered.

    A text that begins with ``/`` is a path: as it is, with ``*`` for anything, or ending in ``/`` for
    everything below. Any other text is the name of a route, with ``*`` likewise. Functions get the request.
    """

    def __init__(self, exempt: tuple[Exempt, ...], place_of: Callable[[Any], Place]) -> None:
        texts = [item for item in exempt if isinstance(item, str)]
        self._paths = _pattern([text for text in texts if text.startswith("/")])
        self._routes = _pattern([text for text in texts if not text.startswith("/")])
        self._predicates = [item for item in exempt if callable(item)]
        self._place_of = place_of
        self._known: dict[Place, bool] = {}

    def covers(self, request: Any) -> bool:
        """Whether the calls of *request* pass unmetered; a function that fails does not exempt."""
        if self._paths is not None or self._routes is not None:
            place = self._place_of(request)
            known = self._known.get(place)
            if known is None:
                known = self._remember(place)
            if known:
                return True
        return any(self._says_so(predicate, request) for predicate in self._predicates)

    def covers_path(self, path: str) -> bool:
        """Whether *path* alone exempts; for what must be known before there is a route."""
        return self._paths is not None and self._paths.match(path) is not None

    def _remember(self, place: Place) -> bool:
        known = self.covers_path(place.path) or (
            self._routes is not None and place.route is not None and bool(self._routes.match(place.route))
        )
        if len(self._known) >= PATHS_MAX:
            self._known.clear()
        if len(place.path) <= PATH_LENGTH_MAX:  # users choose them
            self._known[place] = known
        return known

    @staticmethod
    def _says_so(predicate: Callable[[Any], Any], request: Any) -> bool:
        try:
            return bool(predicate(request))
        except Exception:
            log.exception("exempt failed: the request is metered")
            return False


def _pattern(texts: list[str]) -> re.Pattern[str] | None:
    if not texts:
        return None
    return re.compile("|".join(translate(f"{text}*" if text.endswith("/") else text) for text in texts))
