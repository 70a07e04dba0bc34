"""What surrounds every page: head, navigation, whether metering works; and the headers it is sent with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

from paygent.charts.markup import stylesheet, tag, text
from paygent.web.limit_response import LimitResponse

# Nothing but our own style sheet and icon: no script, no inline style, no frame, no form to elsewhere.
POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = (
    ("content-security-policy", POLICY),
    ("x-frame-options", "DENY"),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),  # addresses hold the ids of users
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("x-robots-tag", "noindex, nofollow"),
)
_KEPT = "private, max-age=31536000, immutable"
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="9" '
    'fill="#4f5bd5"/><path d="M9 22V10h8.2a4.4 4.4 0 0 1 0 8.8H13" fill="none" stroke="#fff" '
    'stroke-width="3.2" stroke-linecap="round" stroke-linejoin="round"/><circle cx="22.5" cy="22" r="2.2" '
    'fill="#9fe8c8"/></svg>'
)
ICON = "icon.svg"
NAVIGATION = (("", "Overview"), ("users", "Users"), ("plans", "Plans"))


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the dashboard is mounted (without a slash at the end), the page shown, and how metering goes."""

    root: str
    current: str
    health: Mapping[str, Any]

    def to(self, page: str, **query: str | None) -> str:
        """The address of a page; whatever *query* holds comes through unharmed."""
        given = {key: value for key, value in query.items() if value is not None}
        return f"{self.root}/{page}" + (f"?{urlencode(given)}" if given else "")

    def to_user(self, user_id: str) -> str:
        """The address of a user's page."""
        return self.to("user", id=user_id)


@cache
def style() -> str:
    """The style of the pages and of their charts."""
    return stylesheet() + "\n" + (files(__package__) / "dashboard.css").read_text("utf-8")


@cache
def style_name() -> str:
    """The file name of the style: other content has another name, so that it may be kept for ever."""
    return f"style.{hashlib.sha256(style().encode()).hexdigest()[:12]}.css"


def asset(path: str) -> LimitResponse | None:
    """The style sheet or the icon."""
    if path == style_name():
        return _answer(200, "text/css; charset=utf-8", style(), _KEPT)
    if path == ICON:
        return _answer(200, "image/svg+xml", _ICON, _KEPT)
    return None


def page(frame: Frame, title: str, *main: str, status: int = 200) -> LimitResponse:
    """A whole page; *main* is markup."""
    head = tag(
        "head",
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="robots" content="noindex">',
        tag("title", text(f"{title} · Paygent")),
        f'<link rel="icon" href="{text(frame.to(ICON))}" type="image/svg+xml">'
        f'<link rel="stylesheet" href="{text(frame.to(style_name()))}">',
    )
    body = tag(
        "body",
        tag("a", "Skip to the content", href="#content", class_="skip"),
        _header(frame),
        tag("main", *main, id="content", tabindex="-1"),
        tag("footer", tag("p", "Times are in UTC. This page only reads; it changes nothing.")),
    )
    return _answer(
        status,
        "text/html; charset=utf-8",
        "<!doctype html>\n" + tag("html", head, body, lang="en"),
        "no-store",
    )


def plain(status: int, words: str, *headers: tuple[str, str]) -> LimitResponse:
    """An answer for whoever is no browser of ours."""
    answer = _answer(status, "text/plain; charset=utf-8", words, "no-store")
    return answer._replace(headers=(*answer.headers, *headers))


def moved(address: str) -> LimitResponse:
    """Send the browser to *address*."""
    return plain(307, "", ("location", address))


def _header(frame: Frame) -> str:
    items = (
        tag(
            "li",
            tag("a", text(title), href=frame.to(path), aria_current=_current(path, frame.current)),
        )
        for path, title in NAVIGATION
    )
    icon = f'<img src="{text(frame.to(ICON))}" alt="" width="26" height="26">'
    return tag(
        "header",
        tag(
            "div",
            tag("a", icon, tag("span", "Paygent"), href=frame.to(""), class_="brand"),
            tag("nav", tag("ul", *items), aria_label="Pages"),
            _health(frame.health),
            class_="bar",
        ),
    )


def _current(path: str, shown: str) -> str | None:
    """What a screen reader says of an item: the page itself, or the one that it belongs to."""
    if path == shown:
        return "page"
    return "true" if (path, shown) == ("users", "user") else None


def _health(health: Mapping[str, Any]) -> str:
    if health.get("degraded"):
        return tag("p", "Ledger away", class_="health health-bad")
    return tag("p", "Metering", class_="health health-ok")


def _answer(status: int, media: str, body: str, caching: str) -> LimitResponse:
    raw = body.encode()
    sized = (("content-type", media), ("content-length", str(len(raw))), ("cache-control", caching))
    return LimitResponse(status, (*sized, *_HEADERS), raw)
