"""One call of a model, for threads and for the tasks of workers; it needs no network."""

from __future__ import annotations

import os

import openai

from paygent import ModelCostRate, Paygent, PlanConfig
from paygent.testing.transport import stub_http_client

RATES = {"gpt-4o": ModelCostRate(input=0.01, output=0.03)}
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello"}}],
    "usage": {"prompt_tokens": 1000, "completion_tokens": 1000, "total_tokens": 2000},
}


def openai_client():
    """Return a real client whose every answer uses 1 000 tokens in and 1 000 out."""
    return openai.OpenAI(
        api_key="test", http_client=stub_http_client("openai", respond=ANSWER), max_retries=0
    )


def ask():
    """Make one call, as the task of a worker does."""
    messages = [{"role": "user", "content": "Hi"}]
    openai_client().chat.completions.create(model="gpt-4o", messages=messages)
    return os.getpid()


def start_paygent():
    """Start the Paygent of a worker, on the ledger that the test names."""
    pg = Paygent.init(db_path=os.environ["TASKS_DB"])
    pg.configure_plan("default", PlanConfig(cost_rates=RATES))
    return pg
