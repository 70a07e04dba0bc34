"""What metering adds to one call, the event in the journal on the disk included; and the engine alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from benchmarks._measure import Pair, in_turn, in_turn_async
from benchmarks._setup import ANSWER, MODEL, REQUEST, USER, Clients, paygent
from benchmarks._suite import Row, Sizes, benchmark
from paygent import paygent_context


@benchmark("call")
def call(sizes: Sizes) -> Iterator[Row]:
    """A chat completion of the synchronous SDK."""
    clients = Clients(ANSWER)
    with paygent(), paygent_context(USER):
        ours = clients.ours
        pair = in_turn(lambda: clients.bare(**REQUEST), lambda: ours(**REQUEST), sizes.calls)
    yield pair.row("call", "added per call, sync SDK", "≤ 25 µs")


@benchmark("async")
def async_call(sizes: Sizes) -> Iterator[Row]:
    """A chat completion of the asynchronous SDK."""
    yield asyncio.run(_async_pair(sizes)).row("async", "added per call, async SDK", "≤ 35 µs")


async def _async_pair(sizes: Sizes) -> Pair:
    clients = Clients(ANSWER, is_async=True)
    with paygent(), paygent_context(USER):
        ours = clients.ours
        return await in_turn_async(lambda: clients.bare(**REQUEST), lambda: ours(**REQUEST), sizes.calls)


@benchmark("wrap")
def wrap(sizes: Sizes) -> Iterator[Row]:
    """``wrap`` around a response that is there already: gate, price, journal and post, and nothing else."""
    response = Clients(ANSWER).bare(**REQUEST)

    def ready() -> object:
        return response

    with paygent() as pg:
        pair = in_turn(ready, lambda: pg.wrap(ready, user_id=USER, model=MODEL), sizes.calls)
    yield pair.row("wrap", "the engine alone", "≤ 15 µs")
