"""What the served project is told by its environment; ``paygent serve`` sets it from its options."""

from __future__ import annotations

import ipaddress
import os
import secrets
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

DATABASE = "PAYGENT_DATABASE"
BOOTSTRAP_KEY = "PAYGENT_BOOTSTRAP_KEY"
ADMIN_PASSWORD = "PAYGENT_ADMIN_PASSWORD"  # noqa: S105  # the name of a variable
SECRET_KEY = "PAYGENT_SECRET_KEY"  # noqa: S105  # the name of a variable
ALLOWED_HOSTS = "PAYGENT_ALLOWED_HOSTS"
WEBHOOK_NETWORKS = "PAYGENT_WEBHOOK_NETWORKS"
METRICS_KEY = "PAYGENT_METRICS_KEY"
PUBLIC_URL = "PAYGENT_URL"
PROXIES = "PAYGENT_PROXIES"
DEFAULT_FILE = "~/.paygent/server.db"
_SQLITE = {
    "ENGINE": "django.db.backends.sqlite3",
    "OPTIONS": {
        "timeout": 20,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL",
    },
}
_POSTGRES = ("postgresql", "postgres")
# The ledger prepares its statements, which are few; those of the admin, of which each is another, are not.
_PREPARED_AFTER = 1_000_000


class SetupError(ValueError):
    """The server cannot run as it is configured; the message says what to change."""


def database(url: str | None = None) -> dict[str, Any]:
    """
    The entry of ``DATABASES`` for *url*, by default that of the environment, else a file in the home folder.

    Raises:
        SetupError: The URL cannot be meant.
    """
    url = url or os.environ.get(DATABASE) or f"sqlite:///{Path(DEFAULT_FILE).expanduser()}"
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        path = unquote(url[len("sqlite:///") :]) if url.startswith("sqlite:///") else ""
        if not path or path == ":memory:":
            raise SetupError(f"{DATABASE}: a SQLite database is written sqlite:////path/to/file")
        return {**_SQLITE, "NAME": str(Path(path).expanduser().absolute()), "CONN_MAX_AGE": None}
    if parts.scheme not in _POSTGRES or not parts.path.strip("/"):
        raise SetupError(
            f"{DATABASE}: must be sqlite:///… or postgresql://user:password@host/name, not {parts.scheme!r}"
        )
    return _postgres(parts)


def _postgres(parts: Any) -> dict[str, Any]:
    if find_spec("psycopg") is None:
        raise SetupError(f"{DATABASE}: PostgreSQL needs psycopg: pip install 'paygent[postgres]'")
    options: dict[str, Any] = dict(parse_qsl(parts.query))
    prepare = options.pop("prepare", "on")
    if prepare not in ("on", "off"):
        raise SetupError(f"{DATABASE}: prepare must be on or off, not {prepare!r}")
    if prepare == "on":
        options["prepare_threshold"] = _PREPARED_AFTER
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path[1:]),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": unquote(parts.hostname or ""),
        "PORT": str(parts.port or ""),
        "CONN_MAX_AGE": None,  # one connection per thread of the server, for as long as it is good
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {
            "connect_timeout": 5,
            "server_side_binding": True,  # values travel beside the statement and need no quoting
            **options,
        },
    }


def secret_key() -> str:
    """
    The key that signs the admin's sessions: ``PAYGENT_SECRET_KEY``, else one that is made once per machine.

    Several servers on one database need the same key, or an admin is signed out by each of them in turn.
    """
    given = os.environ.get(SECRET_KEY)
    if given:
        return given
    path = Path("~/.paygent/server.secret").expanduser()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text(encoding="utf-8") or os.urandom(32).hex()
    with os.fdopen(made, "w", encoding="utf-8") as file:
        key = secrets.token_urlsafe(48)
        file.write(key)
    return key


def allowed_hosts() -> list[str]:
    """``PAYGENT_ALLOWED_HOSTS``, by commas; by default any: this server builds no address from the header."""
    return [host for host in os.environ.get(ALLOWED_HOSTS, "*").replace(" ", "").split(",") if host]


def public_origin() -> str | None:
    """
    The origin of ``PAYGENT_URL``, under which browsers reach the server: scheme, host and port.

    Raises:
        SetupError: It is no address of a web site.
    """
    given = os.environ.get(PUBLIC_URL, "").strip()
    if not given:
        return None
    parts = urlsplit(given)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise SetupError(f"{PUBLIC_URL}: must be written https://pay.example.com")
    return f"{parts.scheme}://{parts.netloc}"


def proxies() -> list[str]:
    """
    ``PAYGENT_PROXIES``, by commas: addresses and networks whose word counts on how a request came, or ``*``.

    Raises:
        SetupError: One of them is none of that.
    """
    given = _listed(PROXIES)
    return given if given == ["*"] else _networks(PROXIES, given)


def webhook_networks() -> list[str]:
    """
    ``PAYGENT_WEBHOOK_NETWORKS``, by commas: private networks that webhooks may go to.

    Raises:
        SetupError: One of them is no network.
    """
    return _networks(WEBHOOK_NETWORKS, _listed(WEBHOOK_NETWORKS))


def _listed(name: str) -> list[str]:
    return [part for part in os.environ.get(name, "").replace(" ", "").split(",") if part]


def _networks(name: str, given: list[str]) -> list[str]:
    for network in given:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise SetupError(f"{name}: {error}") from error
    return given
