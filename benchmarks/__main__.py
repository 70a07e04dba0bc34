"""``python -m benchmarks [NAME ...] [--json FILE]``: run the benchmarks, print their table."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import (  # noqa: F401  # they register
    admin,
    backend,
    calls,
    crowds,
    exactness,
    gates,
    ledgers,
    memory,
    requests,
    starts,
    streams,
)
from benchmarks._suite import BENCHMARKS, TINY, Row, Sizes, rows_of
from benchmarks._table import NOISE, header, line, machine

LONG = ("admin",)  # minutes, for a million events: only by name


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line as values."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of: {', '.join(BENCHMARKS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE as well")
    parser.add_argument(
        "--tiny", action="store_true", help="the smallest sizes: shows that all runs, measures nothing"
    )
    given = parser.parse_args(arguments)
    unknown = [name for name in given.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark named {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; 0, or 2 for a command that cannot be."""
    given = parsed(arguments)
    sizes = TINY if given.tiny else Sizes()
    start_s, about = time.monotonic(), machine()
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    print(f"\n{header()}", flush=True)
    rows: list[Row] = []
    for row in rows_of(given.names or [name for name in BENCHMARKS if name not in LONG], sizes):
        rows.append(row)
        print(line(row), flush=True)
    print(f"\n{NOISE}\n{time.monotonic() - start_s:.0f} s in all.")
    if given.json is not None:
        figures = {"machine": about, "rows": [row.as_json() for row in rows]}
        given.json.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
