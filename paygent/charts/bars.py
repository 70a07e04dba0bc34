"""Columns along time: one value each, or several that stand on each other."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from paygent.charts.formats import number
from paygent.charts.markup import (
    ENGLISH,
    SERIES_MAX,
    Words,
    empty,
    figure,
    finite,
    image,
    place,
    share,
    table,
    tag,
    text,
)

Format = Callable[[float], str]
_LABELS_MAX = 8
_BAR_SHARE = 0.72  # of the room of a column; the rest is the gap
_LABEL_ROOM = 24  # pixels below the bars
_PLAIN = re.compile(r"\D?[\d,]+(\.\d+)?")  # a number, with the sign of a currency perhaps
_TOP = 10  # pixels above the highest mark, for its label


@dataclass(frozen=True, slots=True)
class Series:
    """The values of one thing, one for each label; zero or more."""

    name: str
    values: tuple[float, ...]

    @property
    def total(self) -> float:
        """The sum of the values."""
        return sum(self.values)


def bars(
    labels: Sequence[str],
    values: Sequence[float],
    *,
    title: str,
    name: str,
    show: Format = number,
    tick: Format | None = None,
    height: int = 220,
    words: Words = ENGLISH,
) -> str:
    """One column per label; *name* says what the values are, *show* and *tick* word them."""
    return stacked_bars(
        labels, [Series(name, tuple(values))], title=title, show=show, tick=tick, height=height, words=words
    )


def stacked_bars(
    labels: Sequence[str],
    series: Sequence[Series],
    *,
    title: str,
    show: Format = number,
    tick: Format | None = None,
    height: int = 220,
    words: Words = ENGLISH,
) -> str:
    """
    One column per label, made of one part per series; more than eight series become *other*.

    Raises:
        ValueError: A value is negative or not finite, or a series has another length than *labels*.
    """
    for one in series:
        if len(one.values) != len(labels) or min(finite(one.values), default=0) < 0:
            raise ValueError(f"{one.name!r} needs {len(labels)} values of zero or more")
    drawn = top_series((one for one in series if one.total), words=words)
    totals = [sum(one.values[index] for one in drawn) for index in range(len(labels))]
    if not any(totals):
        return empty(title, words)
    are_whole = all(float(value).is_integer() for one in drawn for value in one.values)
    marks = ticks(max(totals), whole=are_whole)
    room = height - _LABEL_ROOM - _TOP
    scale = room / marks[-1]
    bottom = float(height - _LABEL_ROOM)
    parts = [
        _grid(marks, bottom, scale, tick or show),
        *(
            _column(index, labels, drawn, totals[index], bottom, scale, show)
            for index in range(len(labels))
            if totals[index]
        ),
        *_axis(labels, bottom),
    ]
    about = _about(labels, totals, show, words)
    picture = image(*parts, title=title, about=about, kind="pgc-bars", width="100%", height=height)
    legend = _legend(drawn, show) if len(drawn) > 1 else ""
    return figure(title, picture, legend, _numbers(title, labels, drawn, totals, show, words))


def top_series(series: Iterable[Series], count: int = SERIES_MAX, *, words: Words = ENGLISH) -> list[Series]:
    """The largest *count* series, largest first; where there are more, the last is the sum of the rest."""
    ordered = sorted(series, key=lambda one: (-one.total, one.name))
    if len(ordered) <= count:
        return ordered
    kept, rest = ordered[: count - 1], ordered[count - 1 :]
    sums = tuple(sum(values) for values in zip(*(one.values for one in rest), strict=True))
    return [*kept, Series(words.other, sums)]


def ticks(highest: float, *, whole: bool = False) -> list[float]:
    """Round marks from zero up to at least *highest*, three to six; fewer where all must be *whole*."""
    raw = highest / 4
    power: float = 10.0 ** math.floor(math.log10(raw))
    steps = [one * power for one in (1, 2, 2.5, 5, 10) if raw <= one * power * (1 + 1e-9)]
    step = next(one for one in steps if not whole or one % 1 == 0)
    count = math.ceil(highest / step - 1e-9)
    return [step * index for index in range(count + 1)]


def _grid(marks: Sequence[float], bottom: float, scale: float, tick: Format) -> str:
    lines = []
    for mark, label in zip(marks, _evened([tick(mark) for mark in marks]), strict=True):
        y = place(bottom - mark * scale)
        lines.append(
            tag("line", x1="0", x2="100%", y1=y, y2=y, class_="pgc-line" if mark else "pgc-line pgc-base")
        )
        lines.append(tag("text", text(label), x="-8", y=y, dy="0.32em", text_anchor="end", class_="pgc-tick"))
    return tag("g", *lines, aria_hidden="true")


def _evened(labels: Sequence[str]) -> list[str]:
    """Marks with as many decimals as the finest one: $0, $0.50, $1.00. Those with letters stay."""
    digits = max(len(label.rpartition(".")[2]) if "." in label else 0 for label in labels)
    if digits == 0 or not all(_PLAIN.fullmatch(label) for label in labels):
        return list(labels)
    zero, *others = labels
    return [zero, *(_padded(label, digits) for label in others)]


def _padded(label: str, digits: int) -> str:
    whole, _, rest = label.partition(".")
    return f"{whole}.{rest.ljust(digits, '0')}"


def _column(
    index: int,
    labels: Sequence[str],
    series: Sequence[Series],
    total: float,
    bottom: float,
    scale: float,
    show: Format,
) -> str:
    """One column; its title is what a pointer over it reads."""
    room = 1 / len(labels)
    x = index * room + room * (1 - _BAR_SHARE) / 2
    top, parts = bottom, []
    for number_, one in enumerate(series):
        tall = one.values[index] * scale
        if tall:
            top -= tall
            parts.append(
                tag("rect", x=share(x), width=share(room * _BAR_SHARE), y=place(top),
                    height=place(max(tall, 0.5)), class_=f"pgc-s{number_}")
            )  # fmt: skip
    lines = [f"{labels[index]}: {show(total)}"]
    if len(series) > 1:
        lines += [f"{one.name}: {show(one.values[index])}" for one in series if one.values[index]]
    area = tag(
        "rect", x=share(index * room), width=share(room), y="0", height=place(bottom), class_="pgc-hit"
    )
    return tag("g", tag("title", text("\n".join(lines))), area, *parts, class_="pgc-col")


def _axis(labels: Sequence[str], bottom: float) -> Iterable[str]:
    every = math.ceil(len(labels) / _LABELS_MAX)
    room = 1 / len(labels)
    for place_in_row, index in enumerate(range(0, len(labels), every)):
        minor = " pgc-minor" if place_in_row % 2 else ""
        x = share((index + 0.5) * room)
        yield tag("text", text(labels[index]), x=x, y=place(bottom + 17), text_anchor="middle",
                  class_=f"pgc-tick{minor}", aria_hidden="true")  # fmt: skip


def _legend(series: Sequence[Series], show: Format) -> str:
    items = (
        tag(
            "li",
            swatch(index),
            tag("span", text(one.name), class_="pgc-name"),
            tag("span", text(show(one.total)), class_="pgc-value"),
        )
        for index, one in enumerate(series)
    )
    return tag("ul", *items, class_="pgc-legend")


def swatch(index: int) -> str:
    """The colour of a series."""
    square = tag("rect", width="10", height="10", rx="3", class_=f"pgc-s{index}")
    return tag("svg", square, width="10", height="10", aria_hidden="true", class_="pgc-swatch")


def _about(labels: Sequence[str], totals: Sequence[float], show: Format, words: Words) -> str:
    highest = max(range(len(totals)), key=totals.__getitem__)
    return (
        f"{labels[0]} \u2013 {labels[-1]}. {words.total}: {show(sum(totals))}. "
        f"{labels[highest]}: {show(totals[highest])}."
    )


def _numbers(
    title: str,
    labels: Sequence[str],
    series: Sequence[Series],
    totals: Sequence[float],
    show: Format,
    words: Words,
) -> str:
    """The newest first, as one looks for it."""
    several = len(series) > 1
    head = [words.label, *(one.name for one in series), *([words.total] if several else [])]
    body = [
        [label, *(show(one.values[index]) for one in series), *([show(totals[index])] if several else [])]
        for index, label in enumerate(labels)
    ]
    return table(title, head, reversed(body), words)
