"""What the ledgers that are reached by URL share: names without passwords, and where their journals are."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import unquote, urlsplit

JOURNALS = "~/.paygent/journal"
_SECRETS = ("password", "sslpassword", "passfile")


def safe_url(url: str) -> str:
    """*url* as it may be logged: without password and without its options."""
    scheme, sign, rest = url.partition("://")
    if not sign:
        return "…"  # it may be anything, also a password
    rest = rest.partition("?")[0].partition("#")[0]
    login, at, place = rest.rpartition("@")
    return f"{scheme}://{login.partition(':')[0]}{at}{place}"


def without_secrets(text: str, url: str) -> str:
    """*text*, in which a driver may have quoted a password of *url*."""
    for secret in _secrets(url):
        text = text.replace(secret, "***")
    return text


def journal_folder(url: str) -> Path:
    """
    Where the processes of this machine keep their journals for the ledger at *url*.

    Who signs in to it is not part of its name: a new password must not orphan what the old one left.
    """
    return Path(JOURNALS).expanduser() / store_digest(url)


def store_digest(url: str) -> str:
    """A short name for the store at *url*, whoever signs in to it."""
    scheme, _, rest = url.partition("://")
    place = rest.partition("?")[0].partition("#")[0].rpartition("@")[2]
    return hashlib.sha256(f"{scheme}://{place}".encode()).hexdigest()[:16]


def _secrets(url: str) -> list[str]:
    """The passwords in *url* as they are written and as they are meant, the longest first."""
    login = url.partition("://")[2].rpartition("@")[0]
    found = {login.partition(":")[2]}
    for part in urlsplit(url.rpartition("@")[2]).query.split("&"):
        name, _, value = part.partition("=")
        if name in _SECRETS:
            found.add(value)
    found |= {unquote(secret) for secret in found}
    return sorted((secret for secret in found if secret), key=len, reverse=True)
