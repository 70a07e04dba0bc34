"""The table, and what to know of the machine it was made on."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

from benchmarks._suite import Row, Spread

COLUMNS = ("benchmark", "what", "measured", "target", "bare p50 / p99", "ours p50 / p99")
_WIDTHS = (10, 51, 12, 12, 17, 17)
NOISE = (
    "Figures come from one run on a shared machine: compare bare and ours within it, not with another run. "
    "p99 shows the neighbours as much as it shows us."
)


def header() -> str:
    """The names of the columns, and a line under them."""
    return _line(COLUMNS) + "\n" + _line(["-" * width for width in _WIDTHS])


def line(row: Row) -> str:
    """One row, with its note in a line of its own."""
    target = "" if row.target is None else row.target
    cells = (
        row.benchmark,
        row.what,
        _amount(row.measured, row.unit),
        target,
        _spread(row.bare),
        _spread(row.ours),
    )
    return _line(cells) + (f"\n{'':{_WIDTHS[0]}}   {row.note}" if row.note else "")


def _line(cells: Iterable[str]) -> str:
    return " | ".join(f"{cell:<{width}}" for cell, width in zip(cells, _WIDTHS, strict=True)).rstrip()


def _amount(value: float, unit: str) -> str:
    text = f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.2f}"
    return f"{text} {unit}".rstrip()


def _spread(spread: Spread | None) -> str:
    return "" if spread is None else f"{_amount(spread.p50, '')} / {_amount(spread.p99, '')}"


def machine() -> dict[str, str]:
    """Interpreter, system, cores, load, and the versions of the SDKs."""
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
        "load": load,
        **{name: _version(name) for name in ("openai", "anthropic", "pydantic")},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
