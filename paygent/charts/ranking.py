"""Things in order of their size, as a list with bars: the list is its own table of numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from paygent.charts.formats import number
from paygent.charts.markup import ENGLISH, Words, empty, figure, finite, share, tag, text


@dataclass(frozen=True, slots=True)
class Rank:
    """One line: its name, its value (may be below zero), where it leads, and a remark."""

    label: str
    value: float
    href: str | None = None
    note: str = ""


def ranking(
    ranks: Sequence[Rank],
    *,
    title: str,
    show: Callable[[float], str] = number,
    words: Words = ENGLISH,
) -> str:
    """
    One line per thing, in the order given; bars of values below zero go to the left of a common zero.

    Raises:
        ValueError: A value is not finite.
    """
    values = finite(rank.value for rank in ranks)
    if not ranks:
        return empty(title, words)
    lowest, highest = min(0, *values), max(0, *values)
    span = (highest - lowest) or 1
    zero = -lowest / span
    lines = (_line(rank, zero, abs(rank.value) / span, show) for rank in ranks)
    return figure(title, tag("ol", *lines, class_="pgc-ranking"))


def _line(rank: Rank, zero: float, length: float, show: Callable[[float], str]) -> str:
    start = zero - length if rank.value < 0 else zero
    kind = "pgc-neg" if rank.value < 0 else "pgc-s0"
    parts = [tag("rect", x="0", width="100%", height="6", rx="3", class_="pgc-track")]
    if length:
        parts.append(
            tag("rect", x=share(start), width=share(length), height="6", rx="3", class_=f"pgc-fill {kind}")
        )
    bar = tag("svg", *parts, width="100%", height="6", aria_hidden="true", class_="pgc-svg pgc-rank-bar")
    # texts of any script keep their own direction, and do not turn the line around
    name = tag("bdi", text(rank.label))
    shown = tag("a", name, href=rank.href) if rank.href else name
    note = tag("span", text(rank.note), class_="pgc-note") if rank.note else ""
    value_kind = "pgc-value pgc-value-neg" if rank.value < 0 else "pgc-value"
    return tag(
        "li",
        tag("span", shown, class_="pgc-name"),
        tag("span", text(show(rank.value)), class_=value_kind),
        note,
        bar,
    )
