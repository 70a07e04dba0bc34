"""
Install Paygent, sentry-sdk and OpenTelemetry's instrumentation in every order, and ask in every way.

Prints as JSON what each of them has seen, by order; also without Paygent, to compare with. Each order has a
process of its own, because none of the other two can be taken off again without a trace.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from itertools import permutations

import openai
import sentry_sdk
from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sentry_sdk.integrations.openai import OpenAIIntegration
from sentry_sdk.transport import Transport

from paygent import ModelCostRate, Paygent, PaygentLimitExceeded, PlanConfig, paygent_context
from paygent.testing.llm_server import LLMServer

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]}
STREAM = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
exporter = InMemorySpanExporter()
envelopes = []


class Collecting(Transport):
    """Keep what sentry-sdk would send."""

    def capture_envelope(self, envelope):
        envelopes.append(envelope)


def install_paygent():
    pg = Paygent.init(ledger="memory://")
    rate = ModelCostRate(input=0.01, output=0.03)
    pg.configure_plan("default", PlanConfig(default_cost_rate=rate))
    pg.configure_plan("spent", PlanConfig(max_spend_per_period=0.0))


def install_sentry():
    sentry_sdk.init(
        dsn="http://key@127.0.0.1:9/1", transport=Collecting, traces_sample_rate=1.0,
        integrations=[OpenAIIntegration()], default_integrations=False, auto_enabling_integrations=False,
    )  # fmt: skip


def install_otel():
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    OpenAIInstrumentor().instrument(tracer_provider=provider)


INSTALL = {"paygent": install_paygent, "sentry": install_sentry, "otel": install_otel}


def ask(url):
    """Make one call in each way: plain, streamed, async, and as embeddings; five in all."""
    with openai.OpenAI(base_url=url, api_key="any", max_retries=0) as client:
        answer = client.chat.completions.create(**CHAT)
        assert answer.choices[0].message.content
        assert list(client.chat.completions.create(**STREAM))
        client.embeddings.create(model="text-embedding-3-small", input="Hi")
    asyncio.run(ask_later(url))


async def ask_later(url):
    async with openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as client:
        await client.chat.completions.create(**CHAT)
        assert [chunk async for chunk in await client.chat.completions.create(**STREAM)]


def refused(url):
    with openai.OpenAI(base_url=url, api_key="any", max_retries=0) as client:
        try:
            client.chat.completions.create(**CHAT)
        except PaygentLimitExceeded as error:
            return error.guard_result.gate_reason
    return None


def sentry_tokens():
    """The input tokens of each span about a model: beside the transaction, or (older) within it."""
    sentry_sdk.flush()
    payloads = [item.payload.json or {} for envelope in envelopes for item in envelope.items]
    for payload in payloads:
        for span in (*payload.get("items", ()), *payload.get("spans", ())):
            told = span.get("attributes") or span["data"]
            tokens = told.get("gen_ai.usage.input_tokens")
            if tokens is not None:
                yield tokens["value"] if isinstance(tokens, dict) else tokens


def try_order(order):
    """Return what each of *order* has seen of five calls of ann and a refused one of ben."""
    for name in order:
        INSTALL[name]()
    pg = Paygent.get_instance()
    events, reason = [], None
    if pg is not None:
        pg.on_usage(events.append)
        pg.assign_plan("ben", "spent")
    with LLMServer(reply_tokens=10) as server:
        with sentry_sdk.start_transaction(name="request"), paygent_context("ann"):
            ask(server.openai_base_url)
        if pg is not None:
            with paygent_context("ben"):
                reason = refused(server.openai_base_url)
        truth = [sum(column) for column in zip(*server.generated.values(), strict=True)]
    spans = [span for span in exporter.get_finished_spans() if "gen_ai.usage.input_tokens" in span.attributes]
    return {
        "truth": truth,
        "events": [[event.user_id, event.input_tokens, event.output_tokens] for event in events],
        "sentry": list(sentry_tokens()),
        "otel": [[span.name, span.attributes["gen_ai.usage.input_tokens"]] for span in spans],
        "refused": reason,
    }


def in_child(order):
    """Try *order* in a fork of this process, which has imported everything and started nothing."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with os.fdopen(writing, "w", encoding="utf-8") as pipe:
            json.dump(try_order(order), pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return json.loads(said)


def main():
    orders = [*permutations(INSTALL), ("sentry", "otel"), ("otel", "sentry")]
    sys.stdout.write(json.dumps({" ".join(order): in_child(order) for order in orders}))


if __name__ == "__main__":
    main()
