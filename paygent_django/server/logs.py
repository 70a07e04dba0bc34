"""Logs of the server: one JSON object a line on the standard error, and no secret in any."""

from __future__ import annotations

import json
import logging
import re
from datetime import datetime, timezone
from typing import Any

# Keys of this product and of providers, passwords in URLs, authorization headers.
_SECRETS = re.compile(r"(pg_(?:live|test)_|whsec_|sk-|Bearer\s+)[\w\-.~+/]{4,}=*|(://[^:/@\s]+):[^@\s]+@")


class JsonFormatter(logging.Formatter):
    """A record as JSON: time, level, logger, message, what ``extra={"said": …}`` adds, the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        said: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "said", {}),
        }
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return without_secrets(json.dumps(said, default=str))


def without_secrets(text: str) -> str:
    """*text* with keys and passwords struck out."""
    return _SECRETS.sub(lambda hit: f"{hit[1]}…" if hit[1] else f"{hit[2]}:…@", text)


SETTINGS: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "paygent_django.server.logs.JsonFormatter"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
    "loggers": {
        "django": {"level": "INFO"},
        "django.request": {"level": "ERROR"},  # what a caller did wrong is in the request's own line
        "django.server": {"handlers": [], "propagate": False},
        "httpx": {"level": "WARNING"},
    },
}
