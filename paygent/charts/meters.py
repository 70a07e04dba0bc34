"""Small pictures for one number or a few: how much of a limit is used, and how it went lately."""

from __future__ import annotations

from collections.abc import Sequence

from paygent.charts.formats import percent
from paygent.charts.markup import finite, image, place, share, tag

STATES = ("ok", "soft", "blocked", "off")
_WIDE, _HIGH = 120, 28


def meter(
    used: float, limit: float | None, *, title: str, soft_at: float | None = None, state: str = "ok"
) -> str:
    """
    How much of *limit* is used, as a bar; without a limit (``None``) the bar is empty and hatched.

    Args:
        soft_at: The share of *limit* at which warnings begin; drawn as a mark.
        state: ``ok``, ``soft``, ``blocked`` or ``off``: decides the colour.

    Raises:
        ValueError: An unknown *state*, or a number that is not finite.
    """
    if state not in STATES:
        raise ValueError(f"state must be one of {', '.join(STATES)}, not {state!r}")
    finite([used, limit or 0, soft_at or 0])
    track_kind = "pgc-track" if limit is not None else "pgc-track pgc-open"
    parts = [tag("rect", width="100%", height="8", rx="4", class_=track_kind)]
    if limit is None:
        return image(*parts, title=title, about=title, kind="pgc-meter", width="100%", height="8")
    part = min(1.0, max(0.0, used / limit)) if limit else 1.0
    if part:
        parts.append(
            tag("rect", width=share(max(part, 0.015)), height="8", rx="4", class_=f"pgc-fill pgc-{state}")
        )
    if soft_at is not None and 0 < soft_at < 1:
        x = share(soft_at)
        parts.append(tag("line", x1=x, x2=x, y1="0", y2="8", class_="pgc-mark"))
    full = used / limit if limit else 1.0
    return image(*parts, title=title, about=percent(full), kind="pgc-meter", width="100%", height="8")


def sparkline(values: Sequence[float], *, title: str) -> str:
    """
    The way of *values*, without axes; it stretches to its place.

    Raises:
        ValueError: A value is not finite.
    """
    finite(values)
    highest, lowest = max(values, default=0), min(0, *values, 0)
    span = (highest - lowest) or 1
    step = _WIDE / max(1, len(values) - 1)
    points = [
        f"{place(index * step)},{place(_HIGH - 2 - (value - lowest) / span * (_HIGH - 4))}"
        for index, value in enumerate(values)
    ]
    parts = []
    if points:
        last_x = points[-1].partition(",")[0]
        corners = [f"0,{_HIGH}", *points, f"{last_x},{_HIGH}"]
        parts.append(tag("polygon", points=" ".join(corners), class_="pgc-area"))
        parts.append(tag("polyline", points=" ".join(points), class_="pgc-way"))
    return image(
        *parts, title=title, about=title, kind="pgc-spark", viewBox=f"0 0 {_WIDE} {_HIGH}",
        preserveAspectRatio="none", width="100%", height=_HIGH,
    )  # fmt: skip
