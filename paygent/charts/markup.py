"""Escaped markup, and what all charts share: words, frame, table, style."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Words:
    """What charts say of themselves, to be given in another language; ``label`` heads the first column."""

    table: str = "Show the numbers"
    label: str = "Day"
    total: str = "Total"
    other: str = "Other"
    nothing: str = "Nothing here yet."


ENGLISH = Words()
SERIES_MAX = 8  # as many colours as people tell apart


@functools.cache
def stylesheet() -> str:
    """The CSS of all charts, to be served as a file of its own."""
    return (files(__package__) / "charts.css").read_text("utf-8")


def tag(name: str, *children: str, **attributes: object) -> str:
    """
    Return an element; *children* are markup already, attributes are escaped here.

    A trailing underscore of an attribute's name is dropped, others become hyphens; ``None`` leaves it out.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{given}>{''.join(children)}</{name}>"


def text(value: object) -> str:
    """*value* as text of a page."""
    return escape(str(value))


def place(value: float) -> str:
    """A coordinate, short."""
    return f"{value:.2f}".rstrip("0").rstrip(".") or "0"


def share(value: float) -> str:
    """A coordinate as a share of the width (0 to 1): bars stretch with the page, texts do not."""
    return place(value * 100) + "%"


def finite(values: Iterable[float]) -> list[float]:
    """
    Return *values* as they are.

    Raises:
        ValueError: One is not finite; there is no place for it on a chart.
    """
    checked = list(values)
    if not all(map(math.isfinite, checked)):
        raise ValueError("a chart shows finite numbers only")
    return checked


def image(*children: str, title: str, about: str, kind: str, **attributes: object) -> str:
    """An SVG that screen readers read as one picture: its title, then what it shows."""
    return tag(
        "svg",
        tag("title", text(title)),
        tag("desc", text(about)),
        *children,
        class_=f"pgc-svg {kind}",
        role="img",
        aria_label=title,
        **attributes,
    )


def figure(title: str, *parts: str, kind: str = "") -> str:
    """A chart below its title."""
    caption = tag("figcaption", text(title), class_="pgc-title")
    return tag("figure", caption, *parts, class_=f"pgc {kind}".strip())


def empty(title: str, words: Words) -> str:
    """What stands where there is nothing to draw."""
    return figure(title, tag("p", text(words.nothing), class_="pgc-nothing"))


def table(title: str, head: Sequence[str], body: Iterable[Sequence[str]], words: Words) -> str:
    """The numbers behind a chart, closed at first; the first cell of a row names it."""
    columns = tag("tr", *(tag("th", text(cell), scope="col") for cell in head))
    rows = (
        tag("tr", tag("th", text(row[0]), scope="row"), *(tag("td", text(cell)) for cell in row[1:]))
        for row in body
    )
    caption = tag("caption", text(title), class_="pgc-hidden")
    grid = tag("table", caption, tag("thead", columns), tag("tbody", *rows), class_="pgc-table")
    # whoever has no pointer scrolls it by its keys
    scroll = tag("div", grid, class_="pgc-scroll", tabindex="0", role="region", aria_label=title)
    return tag("details", tag("summary", text(words.table)), scroll, class_="pgc-data")
