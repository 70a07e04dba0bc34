"""How things are timed: bare and metered in turn, one by one, so that the machine's moods meet both alike."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from time import perf_counter_ns
from typing import Any, NamedTuple

from benchmarks._suite import Row, Spread

US_PER_NS = 1e-3
WARM_UP_MAX = 300


class Pair(NamedTuple):
    """Times of the bare thing and of the metered one, in nanoseconds."""

    bare: list[int]
    ours: list[int]

    def row(self, benchmark: str, what: str, target: str | None, *, note: str | None = None) -> Row:
        """The difference of the medians, in microseconds."""
        bare, ours = Spread.of(self.bare, US_PER_NS), Spread.of(self.ours, US_PER_NS)
        return Row(benchmark, what, ours.p50 - bare.p50, "µs", target, bare, ours, note)


def settle_garbage() -> None:
    """Collect what set-up left, and keep what lives from being walked again and again."""
    gc.collect()
    gc.freeze()


def in_turn(bare: Callable[[], Any], ours: Callable[[], Any], rounds: int) -> Pair:
    """Call both *rounds* times after a warm-up; who goes first changes every round."""
    for _ in range(min(rounds, WARM_UP_MAX)):
        bare()
        ours()
    settle_garbage()
    pair = Pair([], [])
    first, second = (bare, pair.bare), (ours, pair.ours)
    for _ in range(rounds):
        for call, times in (first, second):
            start = perf_counter_ns()
            call()
            times.append(perf_counter_ns() - start)
        first, second = second, first
    return pair


async def in_turn_async(
    bare: Callable[[], Awaitable[Any]], ours: Callable[[], Awaitable[Any]], rounds: int
) -> Pair:
    """The asynchronous twin of :func:`in_turn`."""
    for _ in range(min(rounds, WARM_UP_MAX)):
        await bare()
        await ours()
    settle_garbage()
    pair = Pair([], [])
    first, second = (bare, pair.bare), (ours, pair.ours)
    for _ in range(rounds):
        for call, times in (first, second):
            start = perf_counter_ns()
            await call()
            times.append(perf_counter_ns() - start)
        first, second = second, first
    return pair


def each(call: Callable[[], Any], rounds: int) -> list[int]:
    """Time *call* alone, *rounds* times after a warm-up; nanoseconds."""
    for _ in range(min(rounds, WARM_UP_MAX)):
        call()
    settle_garbage()
    times = []
    for _ in range(rounds):
        start = perf_counter_ns()
        call()
        times.append(perf_counter_ns() - start)
    return times
