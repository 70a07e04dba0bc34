"""The arguments of ``Paygent.init``: checked, and what they leave out taken from the environment."""

from __future__ import annotations

import math
import os
from pathlib import Path

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
        ValueError: Both a key and a ledger are given.
    """
    if api_key and ledger is not None:
        raise ValueError("give either api_key (the backend keeps the ledger) or ledger, not both")
    key = api_key or (os.environ.get("PAYGENT_API_KEY") if ledger is None else None) or None
    return key, base_url or os.environ.get("PAYGENT_BASE_URL") or BASE_URL
