"""The real engine behind the real SDKs: one event per call, and no hold left."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sdk_fakes import MESSAGES, Cut, Wire, chat, chat_events, message

from paygent import Paygent, PlanConfig, paygent_context
from paygent.core.errors import PaygentLimitExceeded

CHAT: dict[str, Any] = {"model": "gpt-4o-mini", "messages": MESSAGES}


@pytest.fixture
def pg() -> Iterator[Paygent]:
    """Yield a Paygent in memory, with a default plan."""
    instance = Paygent.init(ledger="memory://")
    instance.configure_plan("default", PlanConfig(max_spend_per_period=10.0))
    yield instance
    instance.shutdown()


def _events(pg: Paygent, call: Callable[[], Any]) -> list[Any]:
    """Return the usage events that *call* makes for ``alice``."""
    events: list[Any] = []
    pg.on_usage(lambda *args: events.append(args[0]))
    with paygent_context("alice"):
        call()
    until = time.monotonic() + 60
    while _reserved(pg) > 0 and time.monotonic() < until:
        time.sleep(0.01)
    return events


def _reserved(pg: Paygent) -> float:
    return pg.get_user_state("alice").current_usage.reserved_cost


def test_call_makes_one_event(pg: Paygent) -> None:
    """A chat call is one event with the provider's tokens."""
    (event,) = _events(pg, lambda: Wire(lambda _: chat()).openai().chat.completions.create(**CHAT))
    assert (event.input_tokens, event.output_tokens, event.estimated) == (11, 7, False)


def test_async_message_makes_one_event(pg: Paygent) -> None:
    """An async message is one event with the provider's tokens."""
    create = Wire(lambda _: message()).async_anthropic().messages.create
    made = lambda: asyncio.run(create(model="claude-sonnet-4-6", max_tokens=9, messages=MESSAGES))  # noqa: E731
    (event,) = _events(pg, made)
    assert (event.input_tokens, event.output_tokens, event.estimated) == (11, 7, False)


@pytest.mark.parametrize("way", ["close", "drop", "cut", "never"])
def test_stream_left_early_makes_one_estimated_event(pg: Paygent, way: str) -> None:
    """A stream left early is one event, estimated and not free, and its hold is gone."""

    def call() -> None:
        events = chat_events(usage=False)
        wire = Wire(lambda _: [*events[:2], Cut] if way == "cut" else events)
        stream = wire.openai(base_url="http://127.0.0.1:9/v1").chat.completions.create(**CHAT, stream=True)
        if way != "never":
            next(stream)
        if way == "cut":
            with pytest.raises(Exception, match=r"cut|Connection error"):
                list(stream)
        if way == "close":
            stream.close()

    (event,) = _events(pg, call)
    gc.collect()
    assert event.estimated
    assert event.cost_nusd > 0
    assert _reserved(pg) == 0


def test_spent_user_is_refused_before_anything_is_sent(pg: Paygent) -> None:
    """Once the plan is spent, the SDK call raises and nothing is sent."""
    pg.configure_plan("default", PlanConfig(max_spend_per_period=0.000_001))
    wire = Wire(lambda _: chat())
    with paygent_context("alice"):
        wire.openai().chat.completions.create(**CHAT)
        with pytest.raises(PaygentLimitExceeded):
            wire.openai().chat.completions.create(**CHAT)
    assert len(wire.sent) == 1


def test_keywords_say_who_pays(pg: Paygent) -> None:
    """A call with ``paygent_user_id`` is that user's, with its metadata."""
    keywords: dict[str, Any] = {"paygent_user_id": "alice", "paygent_metadata": {"feature": "x"}}
    client = Wire(lambda _: chat()).openai()
    (event,) = _events(pg, lambda: client.chat.completions.create(**CHAT, **keywords))
    assert (event.user_id, event.metadata) == ("alice", {"feature": "x"})


def test_wrap_of_an_instrumented_call_counts_once(pg: Paygent) -> None:
    """``wrap()`` around a call that the seam sees too is one event, also with keywords inside."""
    client = Wire(lambda _: chat()).openai()
    inside = lambda: client.chat.completions.create(**CHAT, paygent_user_id="alice")  # noqa: E731
    (event,) = _events(pg, lambda: pg.wrap(inside, user_id="alice", model="gpt-4o-mini"))
    assert (event.input_tokens, event.output_tokens) == (11, 7)


@pytest.mark.parametrize("batch", ["submit", "unknown"])
def test_call_without_charge_leaves_no_hold(pg: Paygent, batch: str) -> None:
    """A batch that was only submitted, or a path without usage, makes no event and leaves no hold."""
    client = Wire(lambda _: {"id": "batch_1"}).openai()
    if batch == "submit":
        submit = {"input_file_id": "f", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        made = _events(pg, lambda: client.batches.create(**submit))
    else:
        made = _events(pg, lambda: client.post("/some/new/path", cast_to=object, body={}))
    assert (made, _reserved(pg)) == ([], 0)
