"""The arguments of ``Paygent.init``: checked, and what they leave out taken from the environment."""

from __future__ import annotations

import math
import os
from pathlib import Path
from urllib.parse import urlsplit

BASE_URL = "https://api.paygent.to"
DEFAULT_DB = "~/.paygent/local.db"
_CHOICES = {
    "unattributed": ("pass", "block"),
    "no_plan": ("allow", "block"),
    "unpriced": ("block", "allow"),
    "on_cancel": ("estimate", "void"),
}


def check_choices(**given: str) -> None:
    """
    Check the settings that are one of two words.

    Raises:
        ValueError: Another word; the message names the argument.
    """
    for name, value in given.items():
        if value not in _CHOICES[name]:
            raise ValueError(f"{name}={value!r}: must be one of {', '.join(map(repr, _CHOICES[name]))}")


def check_amounts(**given: float) -> None:
    """
    Check the settings that are a number above zero; a time to wait may also be zero.

    Raises:
        ValueError: Not a number, NaN, infinite, negative, or zero; the message names the argument.
    """
    for name, value in given.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not number or value < 0 or (value == 0 and name != "busy_timeout"):
            raise ValueError(f"{name}={value!r}: must be a number above zero")


def ledger_url(ledger: str | None, db_path: str | os.PathLike[str] | None) -> str:
    """The ledger to open: the URL, else the SQLite file."""
    return ledger if ledger is not None else f"sqlite:///{local_file(db_path)}"


def local_file(db_path: str | os.PathLike[str] | None) -> Path:
    """The SQLite file of this machine."""
    return Path(db_path or DEFAULT_DB).expanduser().absolute()


def backend(api_key: str | None, base_url: str | None, ledger: str | None) -> tuple[str | None, str]:
    """
    Key and address of the backend, from the arguments or else the environment; no key means local mode.

    A *ledger* that is named in code is meant, whatever key the environment holds.

    Raises:
        ValueError: Both a key and a ledger are given; no HTTP header can carry the key; the address is none.
    """
    if api_key and ledger is not None:
        raise ValueError("give either api_key (the backend keeps the ledger) or ledger, not both")
    key = api_key or (os.environ.get("PAYGENT_API_KEY") if ledger is None else None) or None
    address = base_url or os.environ.get("PAYGENT_BASE_URL") or BASE_URL
    return (None, address) if key is None else (_checked_key(key), _checked_address(address))


def _checked_key(key: object) -> str:
    """The key without the line end that files leave behind it; it is in no message, whatever it holds."""
    text = key.strip() if isinstance(key, str) else ""
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(
            "api_key (or PAYGENT_API_KEY): must be text of ASCII letters, digits and signs, as in pg_live_..."
        )
    return text


def _checked_address(address: object) -> str:
    """The address of the backend; it may hold a login, so that no message repeats it."""
    text = address.strip() if isinstance(address, str) else ""
    try:
        parts = urlsplit(text)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one:
        raise ValueError(
            f"base_url (or PAYGENT_BASE_URL): must be an address with its scheme, as in {BASE_URL}"
        )
    return text
