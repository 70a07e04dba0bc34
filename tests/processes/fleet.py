"""What the tests of processes share: a plan counted in calls, the real SDK, what a file says in the end."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path

import openai

from paygent import ModelCostRate, PaygentLimitExceeded, PaygentUnavailable, PlanConfig, paygent_context
from paygent.ledgers.sqlite import SqliteLedger
from paygent.testing.llm_server import Answer, Controls, json_answer
from paygent.testing.transport import stub_http_client

HERE = Path(__file__).parent
AWAY_S_MAX = 20  # less than a lease of a dead process lives
MODEL = "m"
INPUT_TOKENS, OUTPUT_TOKENS = 10, 10
BILLED = {"x-llm-usage": f"{INPUT_TOKENS},{OUTPUT_TOKENS}"}  # the LLM server reports this, whatever it wrote
CALL_NUSD = 20_000_000  # what one call costs, at a dollar per 1 000 tokens
MESSAGES = [{"role": "user", "content": "Where is my parcel?"}]  # 19 bytes and a little more: 7 to 11 tokens
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": MODEL,
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Here."}}],
    "usage": {"prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS, "total_tokens": 20},
}


def plan(calls, **config):
    """A plan that covers *calls* calls and half of one more, so that no rounding decides."""
    given = {
        "max_spend_per_period": (calls + 0.5) * CALL_NUSD / 1e9,
        "cost_rates": {MODEL: ModelCostRate(input=1.0, output=1.0)},
        "pre_call_estimate": True,
        "reservation_safety_factor": 1.0,
        **config,
    }
    return PlanConfig(**given)


def answer(latency_s, body):
    """A chat completion that takes its time."""
    ready = json_answer(body)
    return Answer(body=ready.body, headers=ready.headers, controls=Controls(latency_s=latency_s))


def client(latency_s=0.0, body=ANSWER):
    """The real SDK, on a transport that answers inside the process."""
    http = stub_http_client("openai", respond=answer(latency_s, body))
    return openai.OpenAI(api_key="any", base_url="http://llm.invalid", http_client=http, max_retries=0)


def async_client(latency_s=0.0, body=ANSWER):
    """The asynchronous twin of :func:`client`."""
    http = stub_http_client("openai", is_async=True, respond=answer(latency_s, body))
    return openai.AsyncOpenAI(api_key="any", base_url="http://llm.invalid", http_client=http, max_retries=0)


def ask(sdk, user="ada", **more):
    """Make one call: ``answered``, or why it was refused, ``spent`` or ``busy``."""
    try:
        with paygent_context(user):
            sdk.chat.completions.create(**request(**more))
    except PaygentLimitExceeded as refused:
        return "busy" if refused.retryable else "spent"
    return "answered"


def surely(act):
    """
    *act* where ``fail_open=False``: a ledger that seems to be away is asked again.

    So it may seem on a machine that is busy with other tests; a process that then goes on by itself, which is
    what it should do, would say nothing about a cap.
    """
    ends_s = time.monotonic() + AWAY_S_MAX
    while True:
        try:
            return act()
        except PaygentUnavailable:
            if time.monotonic() > ends_s:
                raise
            time.sleep(0.05)


def ask_surely(sdk, user="ada", **more):
    """:func:`ask`, :func:`surely`."""
    return surely(lambda: ask(sdk, user, **more))


async def ask_async(sdk, user="ada", **more):
    """The asynchronous twin of :func:`ask_surely`."""
    ends_s = time.monotonic() + AWAY_S_MAX
    while True:
        try:
            with paygent_context(user):
                await sdk.chat.completions.create(**request(**more))
        except PaygentLimitExceeded as refused:
            return "busy" if refused.retryable else "spent"
        except PaygentUnavailable:
            if time.monotonic() > ends_s:
                raise
            await asyncio.sleep(0.05)
        else:
            return "answered"


def settle(pg):
    """Settle everything metered so far, however busy the machine is."""
    ends_s = time.monotonic() + AWAY_S_MAX
    while pg.pending_events:
        assert time.monotonic() < ends_s, pg.queue_stats
        pg.flush()


def request(**more):
    """The arguments of a call; one that is given as None is left out."""
    usual = {"model": MODEL, "messages": MESSAGES, "max_tokens": OUTPUT_TOKENS, "extra_headers": BILLED}
    given = {**usual, **more}
    return {name: value for name, value in given.items() if value is not None}


def tell(what):
    """Say something to the test that started this process, as one line of JSON."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def environment(**more):
    """The environment of a process that imports what the tests do."""
    path = os.pathsep.join([str(HERE), str(HERE.parents[1]), *filter(None, sys.path)])
    # Celery would set Django up where this names settings, as other tests of this run may have done.
    inherited = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    return {**inherited, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **more}


class Books:
    """What a ledger file says once everybody has left; the totals are checked against the rows."""

    def __init__(self, path: Path) -> None:
        ledger = SqliteLedger(path)
        self.rows = ledger.events(limit=1_000_000)
        self.ids = [row.id for row in self.rows]
        self.calls = Counter(row.user_id for row in self.rows)
        self.leases = ledger._query("SELECT * FROM leases WHERE amounts <> '[]'")
        for user in self.calls:
            spent = sum(n for (scope, _), n in ledger.totals(user).items() if scope == "total_spend")
            assert spent == sum(row.cost_nusd for row in self.rows if row.user_id == user)
        ledger.close()
        self.journals = sorted(path.with_name(path.name + ".journals").glob("*.journal"))
        assert len(self.ids) == len(set(self.ids))

    @property
    def left(self):
        """The leases and journals that nobody should have left behind."""
        return self.leases, self.journals
