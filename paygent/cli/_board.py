"""The demo's table: live with rich, redrawn on a plain terminal, and rows as they change in a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TextIO

BAR_CELLS = 16
COLUMNS = ("user", "plan", "calls", "tokens", "cost", "of plan", "state")
_WIDTHS = (6, 5, 6, 8, 10, 8, 15)
_STATES = {"ok": "ok", "soft_gate": "near the limit", "hard_gate": "blocked"}
_COLOURS = {"ok": "green", "soft_gate": "yellow", "hard_gate": "bold red"}


class Row(NamedTuple):
    """One user: cost in the billing period, share of the plan's limit, and what the guard says."""

    user: str
    plan: str
    calls: int
    tokens: int
    cost_usd: float
    share: float
    gate: str

    def cells(self) -> tuple[str, ...]:
        """Return the row as text, in the order of ``COLUMNS``."""
        amounts = (f"{self.calls}", f"{self.tokens:,}", f"${self.cost_usd:.5f}", f"{self.share:.0%}")
        return (self.user, self.plan, *amounts, _STATES.get(self.gate, self.gate))


class Board(Protocol):
    """Where the demo is shown."""

    def show(self, rows: Sequence[Row]) -> None:
        """Show the users as they stand."""

    def note(self, text: str, title: str = "") -> None:
        """Say something beside the table, for good."""

    def close(self) -> None:
        """Leave the table as it stands."""


def make_board(stream: TextIO) -> Board:
    """Choose by what *stream* is and by what is installed."""
    if not stream.isatty():
        return LinesBoard(stream)
    try:
        from rich.console import Console

        return RichBoard(Console(file=stream))
    except ImportError:
        return PlainBoard(stream)


class LinesBoard:
    """For pipes and logs: a row is printed when it has changed; nothing is ever taken back."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown: dict[str, Row] = {}

    def show(self, rows: Sequence[Row]) -> None:
        """Print the rows that changed."""
        if not self._shown and rows:
            self._print(_line(COLUMNS))
        for row in rows:
            if self._shown.get(row.user) != row:
                self._shown[row.user] = row
                self._print(_line(row.cells()))

    def note(self, text: str, title: str = "") -> None:
        """Print *text* below what is there."""
        self._print(_headed(text, title))

    def close(self) -> None:
        """Nothing to leave."""

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class PlainBoard:
    """For a terminal without rich: the table is drawn over itself."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines = 0
        self._rows: Sequence[Row] = ()

    def show(self, rows: Sequence[Row]) -> None:
        """Draw the table over the one drawn last."""
        self._erase()
        self._rows = rows
        lines = [_line(COLUMNS), *(_line(row.cells()) for row in rows)]
        self._lines = len(lines)
        print("\n".join(lines), file=self._stream, flush=True)

    def note(self, text: str, title: str = "") -> None:
        """Print *text* above the table."""
        self._erase()
        self._lines = 0
        print(_headed(text, title), file=self._stream, flush=True)
        if self._rows:
            self.show(self._rows)

    def close(self) -> None:
        """Leave the table where it is."""
        self._rows, self._lines = (), 0

    def _erase(self) -> None:
        if self._lines:
            print(f"\x1b[{self._lines}F\x1b[J", end="", file=self._stream)


class RichBoard:
    """For a terminal with rich."""

    def __init__(self, console: Any) -> None:
        from rich.live import Live

        self._console = console
        self._live: Any = Live(console=console, auto_refresh=False)
        self._started = False

    def show(self, rows: Sequence[Row]) -> None:
        """Draw the table anew."""
        if not self._started:
            self._live.start()
            self._started = True
        self._live.update(_rich_table(rows), refresh=True)

    def note(self, text: str, title: str = "") -> None:
        """Print *text* above the table while it lives, else below it."""
        if title:
            self._console.print(f"\n[bold]{title}[/bold]", highlight=False)
        is_json = text.endswith("}")
        self._console.print(text, markup=False, highlight=is_json, soft_wrap=True)

    def close(self) -> None:
        """Leave the table where it is."""
        if self._started:
            self._live.stop()
            self._started = False


def _line(cells: Sequence[str]) -> str:
    numbers = range(2, 6)
    padded = [
        cell.rjust(width) if index in numbers else cell.ljust(width)
        for index, (cell, width) in enumerate(zip(cells, _WIDTHS, strict=True))
    ]
    return "  " + "  ".join(padded).rstrip()


def _headed(text: str, title: str) -> str:
    return f"\n{title}\n{text}" if title else text


def _rich_table(rows: Sequence[Row]) -> Any:
    from rich.box import ROUNDED
    from rich.table import Table
    from rich.text import Text

    table = Table(box=ROUNDED, border_style="dim", pad_edge=True)
    for name in COLUMNS:
        table.add_column(name, justify="right" if name in ("calls", "tokens", "cost") else "left")
    for row in rows:
        colour = _COLOURS.get(row.gate, "white")
        user, plan, calls, tokens, cost, share, state = row.cells()
        filled = min(BAR_CELLS, round(row.share * BAR_CELLS))
        bar = Text.assemble(("█" * filled, colour), ("░" * (BAR_CELLS - filled), "dim"), f" {share:>5}")
        table.add_row(Text(user, "bold"), plan, calls, tokens, cost, bar, Text(state, colour))
    return table
