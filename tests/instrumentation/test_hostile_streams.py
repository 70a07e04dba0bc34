"""Readers who change a stream's events, and reports that say nothing: neither makes a call free."""

import json
from typing import Any

import pytest
from sdk_fakes import MESSAGES, Wire
from sdk_recording import RecordingMeter

WORDS = "word " * 20


def stream(**last: Any) -> Any:
    """A chat stream of 80 chunks of 100 bytes, and a last one with *last*."""
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choice = {"index": 0, "delta": {"content": WORDS}, "finish_reason": None}
    chunks = [{**head, "choices": [choice]}] * 80 + [{**head, "choices": [], **last}]
    blocks = [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks]
    client = Wire(lambda _: [*blocks, b"data: [DONE]\n\n"]).openai()
    return client.chat.completions.create(model="m", messages=MESSAGES, stream=True)


def test_text_that_the_reader_takes_out_of_the_events_is_counted(meter: RecordingMeter) -> None:
    """A filter that masks each chunk once it has it changes nothing of what the provider has written."""
    for chunk in stream():
        for choice in chunk.choices:
            choice.delta.content = None
    assert (meter.only.how, meter.only.output_bytes) == ("estimated", 80 * len(WORDS))


@pytest.mark.parametrize("tokens", [0, "lots", float("nan")], ids=["zero", "text", "nan"])
def test_a_report_that_says_nothing_is_none(meter: RecordingMeter, tokens: object) -> None:
    """Where text was seen, a usage of nothing at all gives way to an estimate."""
    list(stream(usage={"prompt_tokens": tokens, "completion_tokens": tokens, "total_tokens": tokens}))
    assert (meter.only.how, meter.only.output_bytes) == ("estimated", 80 * len(WORDS))
