"""Where a blocked user can upgrade: an address that never holds what a request said."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote, urlsplit

from paygent.core.errors import Refusal

UpgradeUrl = str | Callable[[Refusal], str | None] | None


def checked_upgrade_url(given: object) -> None:
    """
    Check the option *upgrade_url*: a template, a function, or ``None``.

    Raises:
        ValueError: It leads elsewhere, or holds an unknown placeholder.
        TypeError: It is something else.
    """
    if isinstance(given, str):
        checked_url(filled(given, "plan"))
    elif given is not None and not callable(given):
        raise TypeError(f"upgrade_url must be text or a function, not {type(given).__name__}")


def checked_url(url: str) -> str:
    """
    Return *url* if it is ``https://…`` or a path of this app.

    Raises:
        ValueError: Another scheme or origin, or characters that browsers read otherwise than they look.
    """
    has_host = url.startswith("https://") and bool(urlsplit(url).netloc)
    is_own = url.startswith("/") and not url.startswith("//")
    if not (is_own or has_host) or "\\" in url or any(c <= " " or c == "\x7f" for c in url):
        raise ValueError(f"upgrade_url={url!r}: must begin with https:// or be a path of this app")
    return url


def filled(template: str, plan: str) -> str:
    """
    Fill in the present *plan*, percent-encoded.

    Raises:
        ValueError: *template* has another placeholder.
    """
    filled = template.replace("{plan}", quote(plan, safe=""))
    if "{" in filled or "}" in filled:
        raise ValueError(f"upgrade_url={template!r}: the only placeholder is {{plan}}")
    return filled
