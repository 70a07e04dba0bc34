"""The parts that pages are made of. All texts are escaped here: give them plain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from paygent.charts.formats import day_label
from paygent.charts.markup import tag, text
from paygent.core.windows import from_us

STATE_WORDS = {"ok": "Within plan", "soft": "Near limit", "blocked": "Limit reached", "off": "Switched off"}

_SHORT = 14  # characters that a tile has room for in its largest letters


def card(*parts: str, kind: str = "") -> str:
    """A framed part of a page."""
    return tag("section", *parts, class_=f"card {kind}".strip())


def heading(title: str, note: str = "") -> str:
    """The title of a card, with a remark beside it."""
    beside = tag("span", text(note), class_="beside") if note else ""
    return tag("h2", tag("span", text(title)), beside)


def tile(title: str, value: str, note: str = "", picture: str = "") -> str:
    """One figure that is seen at a glance."""
    below = tag("dd", text(note), class_="tile-note") if note else ""
    size = "tile-value" if len(value) <= _SHORT else "tile-value tile-long"
    shown = tag("dd", picture, class_="tile-picture") if picture else ""
    return tag(
        "div",
        tag("dt", text(title)),
        tag("dd", text(value), class_=size),
        below,
        shown,
        class_="tile",
    )


def tiles(*each: str) -> str:
    """Figures in a row."""
    return tag("dl", *each, class_="tiles")


def badge(state: str, note: str = "") -> str:
    """The state of a user or of a limit, in a colour and in words; *note* stands below it."""
    below = tag("span", text(note), class_="under") if note else ""
    return tag("span", text(STATE_WORDS[state]), class_=f"badge badge-{state}") + below


def name(user_id: str) -> str:
    """A text that users chose: of any script and length, with a direction of its own."""
    return tag("bdi", text(user_id), class_="name")


def link(href: str, *parts: str, **attributes: object) -> str:
    """A link; *parts* are markup."""
    return tag("a", *parts, href=href, **attributes)


def moment(us: int, *, with_time: bool = True) -> str:
    """A moment in UTC: for people, and exactly for programs."""
    at = from_us(us)
    shown = day_label(at.date()) + (f" {at.year}" if not with_time else f", {at:%H:%M}")
    return tag("time", text(shown), datetime=at.isoformat(), title=_exactly(at))


def _exactly(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def grid(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()
) -> str:
    """
    A table; *head* are texts, cells are markup.

    Args:
        numbers: Columns of figures, which stand to the right.
    """
    right = set(numbers)

    def kind(column: int) -> str | None:
        return "number" if column in right else None

    columns = (tag("th", text(title), scope="col", class_=kind(at)) for at, title in enumerate(head))
    lines = (
        tag(
            "tr",
            tag("th", row[0], scope="row", class_=kind(0)),
            *(tag("td", cell, class_=kind(at)) for at, cell in enumerate(row[1:], 1)),
        )
        for row in rows
    )
    table = tag(
        "table",
        tag("caption", text(caption), class_="hidden"),
        tag("thead", tag("tr", *columns)),
        tag("tbody", *lines),
    )
    # whoever has no pointer scrolls it by its keys
    return tag("div", table, class_="scroll", tabindex="0", role="region", aria_label=caption)


def nothing(sentence: str) -> str:
    """What stands where there is nothing to show."""
    return tag("p", text(sentence), class_="nothing")


def notice(*sentences: str, kind: str = "warn") -> str:
    """A remark that must not be overlooked; *sentences* are markup."""
    return tag("div", *(tag("p", one) for one in sentences), class_=f"notice notice-{kind}", role="status")
