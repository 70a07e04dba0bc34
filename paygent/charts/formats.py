"""Numbers as people read them."""

from __future__ import annotations

from datetime import date

NUSD_PER_USD = 10**9
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_STEPS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def dollars(nusd: float) -> str:
    """Nano-dollars as dollars and cents; below ten cents with the digits that matter, at most six."""
    usd = abs(nusd) / NUSD_PER_USD
    if 0 < usd < 5e-7:
        return f"<{_sign(nusd)}$0.000001"
    if not 0 < usd < 0.1:
        return f"{_sign(nusd)}${usd:,.2f}"
    whole, _, rest = f"{usd:.6f}".partition(".")
    return f"{_sign(nusd)}${whole}.{rest[:2]}{rest[2:].rstrip('0')}"


def short_dollars(nusd: float) -> str:
    """Nano-dollars for an axis: ``$1.2k``."""
    usd = abs(nusd) / NUSD_PER_USD
    if usd >= 1000:
        return f"{_sign(nusd)}${compact(usd)}"
    digits = 0 if usd == int(usd) else 2 if usd >= 0.1 else 6
    shown = f"{usd:.{digits}f}"
    return f"{_sign(nusd)}${shown.rstrip('0').rstrip('.') if digits == 6 else shown}"


def number(value: float) -> str:
    """A number with its thousands set apart."""
    return f"{_sign(value)}{abs(value):,.0f}"


def compact(value: float) -> str:
    """A number in few characters: ``1.2M``."""
    size = abs(value)
    for step, letter in _STEPS:
        if size >= step * 0.9995:
            shown = f"{size / step:.1f}".removesuffix(".0")
            return f"{_sign(value)}{shown}{letter}"
    return f"{_sign(value)}{size:.1f}".removesuffix(".0")


def percent(value: float) -> str:
    """A share (1.0: all) in per cent; what is above none and below one is not called zero."""
    if 0 < value < 0.01:
        return "<1%"
    if 0.99 < value < 1:
        return "99%"
    return f"{_sign(value)}{abs(value) * 100:.0f}%"


def day_label(day: date) -> str:
    """A day below an axis."""
    return f"{day.day} {_MONTHS[day.month - 1]}"


def _sign(value: float) -> str:
    return "\u2212" if value < 0 else ""
