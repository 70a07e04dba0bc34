"""What a benchmark is: a name, what it shows, and a function from sizes to rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much each benchmark does. The defaults keep the whole run under 90 seconds on two idle cores."""

    calls: int = 2000  # of each kind, in the benchmarks that take bare and metered calls in turn
    chunks: int = 4000
    streams: int = 200
    threads: int = 8
    calls_per_thread: int = 150
    processes: int = 4
    calls_per_process: int = 400
    cap_calls: int = 1500  # how many calls the cap of the contended run covers
    newcomers: int = 300  # users whose first call is timed
    users: int = 10_000
    starts: int = 7  # fresh interpreters for import and init
    events: int = 50_000


TINY = Sizes(
    calls=5,
    chunks=6,
    streams=2,
    threads=2,
    calls_per_thread=3,
    processes=2,
    calls_per_process=3,
    cap_calls=20,
    newcomers=3,
    users=5,
    starts=1,
    events=20,
)


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle, the slow end and the mean of many measurements of one thing."""

    p50: float
    p99: float
    mean: float

    @classmethod
    def of(cls, values: Iterable[float], scale: float = 1.0) -> Spread:
        """Sum up *values*, each times *scale*; at least one."""
        ordered = sorted(values)
        last = len(ordered) - 1
        middle = (ordered[last // 2] + ordered[(last + 1) // 2]) / 2
        return cls(middle * scale, ordered[round(last * 0.99)] * scale, sum(ordered) / len(ordered) * scale)


@dataclass(frozen=True, slots=True)
class Row:
    """
    One line of the table.

    ``measured`` is the figure that ``target`` speaks of, in ``unit``; ``bare`` and ``ours`` are what it was
    worked out from, in the same unit, where there are two things to compare.
    """

    benchmark: str
    what: str
    measured: float
    unit: str
    target: str | None = None
    bare: Spread | None = None
    ours: Spread | None = None
    note: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The row as plain values."""
        return asdict(self)


Run = Callable[[Sizes], Iterable[Row]]
BENCHMARKS: dict[str, Run] = {}


def benchmark(name: str) -> Callable[[Run], Run]:
    """Register the decorated function under *name*."""

    def register(run: Run) -> Run:
        BENCHMARKS[name] = run
        return run

    return register


def rows_of(names: Iterable[str], sizes: Sizes) -> Iterator[Row]:
    """Run the benchmarks called *names*, one after the other."""
    for name in names:
        yield from BENCHMARKS[name](sizes)
