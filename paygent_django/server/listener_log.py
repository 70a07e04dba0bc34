"""gunicorn's log lines, in the form of all others."""

from __future__ import annotations

import logging
from typing import Any

from gunicorn.glogging import Logger  # type: ignore[import-untyped]  # it ships no types


class Log(Logger):
    """Hands everything to the root logger; requests are logged by the application."""

    def setup(self, cfg: Any) -> None:  # noqa: ARG002  # the base's
        """Take no handlers of its own."""
        self.error_log.propagate = True
        self.error_log.handlers.clear()
        self.error_log.setLevel(logging.WARNING)
        self.access_log.handlers.clear()
        self.access_log.disabled = True

    def access(self, *_: Any) -> None:
        """The application says more."""
