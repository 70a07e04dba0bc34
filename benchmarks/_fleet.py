"""Workers that spend one cap together: threads, tasks and processes, and any number of virtual ones."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks._setup import ANSWER, MODEL, REQUEST, USAGE, USER
from paygent import ModelCostRate, Paygent, PaygentLimitExceeded, PlanConfig, paygent_context
from paygent.context import Payer
from paygent.core.usage import Usage
from paygent.ledgers.memory import MemoryLedger
from paygent.meter.call import Call
from paygent.meter.meter import Meter
from paygent.meter.options import Options
from paygent.testing.clock import FakeClock
from paygent.testing.llm_server import Answer, Controls, json_answer
from paygent.testing.transport import stub_http_client

LATENCY_S = 0.01
PATIENCE_S = 2.0
POLL_FIRST_S, POLL_MAX_S = 0.01, 0.25  # how long a caller who queues waits before he asks again
OUTPUT_TOKENS = 1000  # long enough that the reserve of a call without max_tokens fits the cap many times
LONG = {**ANSWER, "usage": {**USAGE, "completion_tokens": OUTPUT_TOKENS, "total_tokens": 1041}}
CALL_USD = (USAGE["prompt_tokens"] + OUTPUT_TOKENS) / 1000


def capped(calls: int, *, exact: bool) -> PlanConfig:
    """A plan whose cap is the price of so many calls, to the nano-dollar; a dollar per 1 000 tokens."""
    rates = {MODEL: ModelCostRate(input=1.0, output=1.0)}
    return PlanConfig(max_spend_per_period=calls * CALL_USD, cost_rates=rates, pre_call_estimate=exact)


def request(*, given: bool) -> dict[str, Any]:
    """The arguments of a call that says how long its answer may be, or does not."""
    sized = {name: value for name, value in REQUEST.items() if name != "max_tokens"}
    return {**sized, "max_tokens": OUTPUT_TOKENS} if given else sized


def client(*, is_async: bool = False) -> Any:
    """A client whose answers take ten milliseconds."""
    import openai

    answer = Answer(body=json_answer(LONG).body, controls=Controls(latency_s=LATENCY_S))
    http = stub_http_client("openai", is_async=is_async, respond=answer)
    kind: Any = openai.AsyncOpenAI if is_async else openai.OpenAI
    return kind(api_key="benchmark", http_client=http, max_retries=0)


def by_threads(attempts: int, threads: int, *, given: bool) -> Counter[str]:
    """Make *attempts* calls of one user on so many threads; how often each outcome came."""
    create = client().chat.completions.create

    def attempt(_: int) -> str:
        try:
            with paygent_context(USER):
                create(**request(given=given))
        except PaygentLimitExceeded as refused:
            return "busy" if refused.retryable else "spent"
        return "answered"

    with ThreadPoolExecutor(threads) as pool:
        return Counter(pool.map(attempt, range(attempts)))


def by_tasks(attempts: int, tasks: int, *, given: bool) -> Counter[str]:
    """The same on the tasks of one event loop."""
    return asyncio.run(_tasks(attempts, tasks, given=given))


async def _tasks(attempts: int, tasks: int, *, given: bool) -> Counter[str]:
    create = client(is_async=True).chat.completions.create
    seen: Counter[str] = Counter()
    left = iter(range(attempts))

    async def work() -> None:
        for _ in left:
            try:
                with paygent_context(USER):
                    await create(**request(given=given))
            except PaygentLimitExceeded as refused:
                seen["busy" if refused.retryable else "spent"] += 1
            else:
                seen["answered"] += 1

    await asyncio.gather(*(work() for _ in range(tasks)))
    return seen


class Counted:
    """Count how often a ledger is asked for anything about leases or events: each time is one transaction."""

    def __init__(self, ledger: Any) -> None:
        self.trips = 0
        self._lease, self._settle = ledger.lease, ledger.settle
        ledger.lease, ledger.settle = self.lease, self.settle

    def lease(self, requests: Any) -> Any:
        """One lease operation, for however many users."""
        self.trips += 1
        return self._lease(requests)

    def settle(self, events: Any, close: Any = ()) -> Any:
        """Events that belong to no wallet."""
        self.trips += bool(events)
        return self._settle(events, close)


@contextmanager
def on_file(db_path: Path, calls: int, *, exact: bool) -> Iterator[Paygent]:
    """A Paygent on *db_path* with the plan of :func:`capped` for everybody."""
    pg = Paygent.init(db_path=db_path)
    try:
        pg.configure_plan("default", capped(calls, exact=exact))
        yield pg
    finally:
        pg.shutdown()


class Virtual:
    """
    Engines of many processes on one ledger in one thread, under a clock of their own.

    Each worker has one call of ten milliseconds after the other; the ledger answers at once.
    """

    def __init__(self, workers: int, calls: int) -> None:
        self.clock = FakeClock()
        ledger = MemoryLedger(self.clock.now_us)
        ledger.put_plan("default", capped(calls, exact=True).model_dump_json())
        self.counted = Counted(ledger)
        options = Options(boot=self.clock.boot, busy_timeout_s=0.0)
        self.meters = [Meter(ledger, options) for _ in range(workers)]
        for meter in self.meters:
            meter.exporter.threaded = False
        self.chance = random.Random(workers)
        self.answered = 0
        self._waits_s = dict.fromkeys(range(workers), 0.0)
        self._again_s = dict.fromkeys(range(workers), 0.0)

    def spend(self, most: int) -> None:
        """Make calls until *most* are answered, or until nobody has got one for a while."""
        idle_rounds = 0
        while self.answered < most and idle_rounds * LATENCY_S < PATIENCE_S:
            open_calls = [call for call in map(self._begin, self._due()) if call is not None]
            self.clock.advance(LATENCY_S)
            for call in open_calls:
                call.finish(Usage(USAGE["prompt_tokens"], OUTPUT_TOKENS))
            for meter in self.meters:
                meter.exporter.run_step()
            self.answered += len(open_calls)
            idle_rounds = 0 if open_calls else idle_rounds + 1

    def _due(self) -> list[int]:
        """The workers in any order, without those who wait before they ask again, as the engine does."""
        workers = self.chance.sample(range(len(self.meters)), len(self.meters))
        return [worker for worker in workers if self.clock.boot() >= self._again_s[worker]]

    def _begin(self, worker: int) -> Call | None:
        call = self.meters[worker].call(Payer(USER), "openai", "chat", MODEL, 0, OUTPUT_TOKENS)
        call.input_tokens = USAGE["prompt_tokens"]
        try:
            self.meters[worker].gate.begin(call)
        except PaygentLimitExceeded:
            wait_s = self._waits_s[worker] = min(max(2 * self._waits_s[worker], POLL_FIRST_S), POLL_MAX_S)
            self._again_s[worker] = self.clock.boot() + wait_s
            return None
        self._waits_s[worker] = 0.0
        return call
