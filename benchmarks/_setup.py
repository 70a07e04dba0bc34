"""What the benchmarks run on: SDK clients that answer inside the process, and a Paygent on a real file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MethodType
from typing import Any

from paygent import ModelCostRate, ModelLimitConfig, Paygent, PlanConfig

MODEL = "gpt-4o-mini"
USER = "user-1"
MESSAGES = [
    {"role": "system", "content": "You are a helpful assistant of a web shop. Answer briefly."},
    {
        "role": "user",
        "content": "Where is my parcel? I ordered it on Monday and it was to come on Wednesday.",
    },
]
REQUEST: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "max_tokens": 200}
USAGE: dict[str, Any] = {
    "prompt_tokens": 41,
    "completion_tokens": 28,
    "total_tokens": 69,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
}
ANSWER: dict[str, Any] = {
    "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
    "object": "chat.completion",
    "created": 1764547200,
    "model": "gpt-4o-mini-2024-07-18",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Your parcel left our warehouse on Tuesday and should reach you tomorrow.",
                "refusal": None,
                "annotations": [],
            },
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": USAGE,
    "service_tier": "default",
    "system_fingerprint": "fp_0392822090",
}


def chunk(content: str | None, usage: dict[str, Any] | None = None) -> dict[str, Any]:
    """One chunk of a streamed chat completion; without *content*, the last one, which has no choices."""
    choices = []
    if content is not None:
        choices = [{"index": 0, "delta": {"content": content}, "logprobs": None, "finish_reason": None}]
    return {
        "id": "chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG",
        "object": "chat.completion.chunk",
        "created": 1764547200,
        "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": "fp_0392822090",
        "choices": choices,
        "usage": usage,
    }


def plan(max_spend_usd: float = 1_000_000.0) -> PlanConfig:
    """A plan with a limit of every kind, so that each call does all the work there is."""
    return PlanConfig(
        max_spend_per_period=max_spend_usd,
        max_spend_per_session=max_spend_usd,
        cost_rates={MODEL: ModelCostRate(input=0.00015, output=0.0006)},
        model_limits={MODEL: ModelLimitConfig(max_tokens_per_period=10**13)},
    )


@contextmanager
def paygent(
    max_spend_usd: float = 1_000_000.0, db_path: Path | None = None, **options: Any
) -> Iterator[Paygent]:
    """A Paygent on a SQLite file, by default a fresh one, with the plan of :func:`plan` for everybody."""
    with tempfile.TemporaryDirectory(prefix="paygent-bench-") as folder:
        pg = Paygent.init(db_path=db_path or Path(folder) / "ledger.db", **options)
        try:
            pg.configure_plan("default", plan(max_spend_usd))
            yield pg
        finally:
            pg.shutdown()


class Clients:
    """
    Two OpenAI clients on stubbed transports: ``bare`` never meets our patches, ``ours`` does.

    Make it before :func:`paygent`, as the bare client keeps what it finds.
    """

    def __init__(self, answer: Any, *, is_async: bool = False) -> None:
        import openai

        from paygent.testing.transport import stub_http_client

        kind: Any = openai.AsyncOpenAI if is_async else openai.OpenAI

        def client() -> Any:
            http = stub_http_client("openai", is_async=is_async, respond=answer)
            return kind(api_key="benchmark", http_client=http)

        bare, self._ours = client(), client()
        # Found on the instance, so that neither the patched class nor the patched method is looked up.
        bare.request = MethodType(type(bare).request, bare)
        self.bare: Callable[..., Any] = bare.chat.completions.create

    @property
    def ours(self) -> Callable[..., Any]:
        """``create`` as an app finds it, patched once there is a Paygent."""
        create: Callable[..., Any] = self._ours.chat.completions.create
        return create
