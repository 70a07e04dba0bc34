"""What the tests of the public API share: answers, clients, plans, and a Paygent under a fake clock."""

from __future__ import annotations

from typing import Any

import anthropic
import openai

from paygent import ModelCostRate, Paygent, PlanConfig, ProviderRegistry
from paygent._connection import Store
from paygent.ledger import Ledger
from paygent.ledgers.memory import MemoryLedger
from paygent.meter.meter import Meter
from paygent.meter.options import Options
from paygent.testing.clock import FakeClock
from paygent.testing.transport import stub_http_client

MESSAGES: list[Any] = [{"role": "user", "content": "Say hello"}]
# One cent per 1 000 tokens in, three per 1 000 tokens out.
RATES = {"gpt-4o": ModelCostRate(input=0.01, output=0.03)}


def plan(**fields: Any) -> PlanConfig:
    """Return a plan that prices ``gpt-4o``; without other fields it has no limits."""
    return PlanConfig(**{"cost_rates": RATES, **fields})


def answer(input_tokens: int = 1000, output_tokens: int = 1000, **more: Any) -> dict[str, Any]:
    """Return a chat completion as a dict; by default it costs four cents under ``RATES``."""
    usage = {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
    }
    message = {"role": "assistant", "content": "Hello"}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": usage,
        **more,
    }


def openai_client(respond: Any = None, **options: Any) -> openai.OpenAI:
    """Return a real client; *respond* is its answer to everything, by default :func:`answer`."""
    client = stub_http_client("openai", respond=answer() if respond is None else respond)
    return openai.OpenAI(api_key="test", http_client=client, max_retries=0, **options)


def async_openai_client(respond: Any = None) -> openai.AsyncOpenAI:
    """Return the asynchronous twin of :func:`openai_client`."""
    client = stub_http_client("openai", is_async=True, respond=answer() if respond is None else respond)
    return openai.AsyncOpenAI(api_key="test", http_client=client, max_retries=0)


def anthropic_client(respond: Any) -> anthropic.Anthropic:
    """Return a real Anthropic client that answers *respond* to everything."""
    client = stub_http_client("anthropic", respond=respond)
    return anthropic.Anthropic(api_key="test", http_client=client, max_retries=0)


def ask(client: Any, **more: Any) -> Any:
    """Make one chat call."""
    return client.chat.completions.create(**{"model": "gpt-4o", "messages": MESSAGES, **more})


def spend(pg: Paygent, user_id: str, usd: float) -> None:
    """Have *user_id* spend *usd* in the running period, without a gate."""
    pg.record_event(user_id, cost=usd)


def gate_events(pg: Paygent, user_id: str | None = None) -> list[Any]:
    """Return the audit trail, oldest first."""
    pg.flush()
    return pg._meter.exporter.call(lambda ledger: ledger.gate_events(user_id)).result(60)[::-1]


def events(pg: Paygent, user_id: str | None = None) -> list[Any]:
    """Return the events in the ledger, oldest first."""
    pg.flush()
    return pg._meter.exporter.call(lambda ledger: ledger.events(user_id)).result(60)[::-1]


class World:
    """A Paygent whose ledger and engine read a clock that the test moves."""

    def __init__(self, ledger: Ledger | None = None, clock: FakeClock | None = None, **options: Any) -> None:
        self.clock = clock or FakeClock()
        self.ledger = ledger or MemoryLedger(now_us=self.clock.now_us)
        meter = Meter(self.ledger, Options(boot=self.clock.boot, **options))
        self.pg = Paygent._replace(Paygent(meter, ProviderRegistry(), Store(self.ledger, "a test", None, "")))

    def call(self, user_id: str = "ann", result: Any = None, **options: Any) -> Any:
        """Make one wrapped call of *user_id*."""
        ready = answer() if result is None else result
        return self.pg.wrap(lambda: ready, **{"user_id": user_id, "model": "gpt-4o", **options})
