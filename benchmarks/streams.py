"""What metering adds to a stream: to each chunk, and once per stream."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from time import perf_counter_ns
from typing import Any

from benchmarks._measure import Pair, in_turn, in_turn_async, settle_garbage
from benchmarks._setup import REQUEST, USAGE, USER, Clients, chunk, paygent
from benchmarks._suite import Row, Sizes, benchmark
from paygent import paygent_context
from paygent.testing.llm_server._values import Answer, event, stream_answer

CHUNKS_PER_STREAM = 200
# Left alone at both ends of a stream: its first chunk opens it, its last ones settle it.
EDGE = 3
# The caller asks for usage himself, so that both sides see the same chunks.
STREAMED = {**REQUEST, "stream": True, "stream_options": {"include_usage": True}}


def _answer(chunks: int) -> Answer:
    events = [event(chunk(f" word{number}")) for number in range(chunks)]
    return stream_answer([*events, event(chunk(None, USAGE)), event(b"[DONE]")])


@benchmark("stream")
def stream(sizes: Sizes) -> Iterator[Row]:
    """Chat streams, chunk by chunk in turn, then whole short ones in turn."""
    yield _sync_chunks(sizes).row("stream", "added per chunk, sync SDK", "≤ 0.5 µs")
    yield asyncio.run(_async_chunks(sizes)).row("stream", "added per chunk, async SDK", "≤ 0.5 µs")
    yield _sync_streams(sizes).row("stream", "added per stream of one chunk, sync SDK", None)
    yield asyncio.run(_async_streams(sizes)).row("stream", "added per stream of one chunk, async SDK", None)


def _sync_chunks(sizes: Sizes) -> Pair:
    pair = Pair([], [])
    per_stream = min(CHUNKS_PER_STREAM, sizes.chunks)
    clients = Clients(_answer(per_stream + 2 * EDGE))
    with paygent(), paygent_context(USER):
        settle_garbage()
        for _ in range(max(1, sizes.chunks // per_stream)):
            sides = [(clients.bare(**STREAMED), pair.bare), (clients.ours(**STREAMED), pair.ours)]
            _edge(sides)
            for _ in range(per_stream):
                for side, times in sides:
                    start = perf_counter_ns()
                    next(side)
                    times.append(perf_counter_ns() - start)
                sides.reverse()
            for side, _ in sides:
                for _ in side:
                    pass
    return pair


def _edge(sides: list[tuple[Any, list[int]]]) -> None:
    for side, _ in sides:
        for _ in range(EDGE):
            next(side)


async def _async_chunks(sizes: Sizes) -> Pair:
    """The asynchronous twin of :func:`_sync_chunks`."""
    pair = Pair([], [])
    per_stream = min(CHUNKS_PER_STREAM, sizes.chunks)
    clients = Clients(_answer(per_stream + 2 * EDGE), is_async=True)
    with paygent(), paygent_context(USER):
        settle_garbage()
        for _ in range(max(1, sizes.chunks // per_stream)):
            sides = [(await clients.bare(**STREAMED), pair.bare), (await clients.ours(**STREAMED), pair.ours)]
            await _async_edge(sides)
            for _ in range(per_stream):
                for side, times in sides:
                    start = perf_counter_ns()
                    await anext(side)
                    times.append(perf_counter_ns() - start)
                sides.reverse()
            for side, _ in sides:
                async for _ in side:
                    pass
    return pair


async def _async_edge(sides: list[tuple[Any, list[int]]]) -> None:
    for side, _ in sides:
        for _ in range(EDGE):
            await anext(side)


def _sync_streams(sizes: Sizes) -> Pair:
    def read(create: Any) -> None:
        for _ in create(**STREAMED):
            pass

    clients = Clients(_answer(1))
    with paygent(), paygent_context(USER):
        return in_turn(lambda: read(clients.bare), lambda: read(clients.ours), sizes.streams)


async def _async_streams(sizes: Sizes) -> Pair:
    """The asynchronous twin of :func:`_sync_streams`."""

    async def read(create: Any) -> None:
        async for _ in await create(**STREAMED):
            pass

    clients = Clients(_answer(1), is_async=True)
    with paygent(), paygent_context(USER):
        return await in_turn_async(lambda: read(clients.bare), lambda: read(clients.ours), sizes.streams)
