"""Work done later: batches, background responses and runs, through the real SDKs."""

from __future__ import annotations

import asyncio
import gc
import json
from typing import Any

import openai
import pytest
from sdk_fakes import MESSAGES, Wire, chat, message, response
from sdk_recording import RecordingMeter

from paygent.core.errors import PaygentLimitExceeded
from paygent.core.usage import Usage
from paygent.instrumentation.jobs import report_unreported
from paygent.meter.jobs import JobLine

BATCH = {
    "id": "batch_1", "object": "batch", "endpoint": "/v1/chat/completions", "input_file_id": "file_in",
    "completion_window": "24h", "status": "validating", "created_at": 1,
}  # fmt: skip
DONE = {**BATCH, "status": "completed", "output_file_id": "file_out", "error_file_id": "file_err"}
LINES = [
    {"id": "b1", "custom_id": "one", "response": {"status_code": 200, "body": chat()}, "error": None},
    {"id": "b2", "custom_id": "two", "response": {"status_code": 400, "body": {"error": {}}}, "error": None},
    {"id": "b3", "custom_id": "three", "response": {"status_code": 200, "body": response()}, "error": None},
]
FILE = "\n".join(map(json.dumps, LINES)).encode()
MODEL = "gpt-4o-mini-2024-07-18"
COUNTED = [
    ("file_out", JobLine("one", MODEL, Usage(11, 7, batch=True))),
    (
        "file_out",
        JobLine(
            "three", MODEL, Usage(11, 7, cache_read_input_tokens=4, reasoning_output_tokens=3, batch=True)
        ),
    ),
]
CLAUDE_BATCH = {
    "id": "msgbatch_1", "type": "message_batch", "processing_status": "ended",
    "created_at": "2026-01-01T00:00:00Z",
    "expires_at": "2026-01-02T00:00:00Z", "request_counts": {},
    "results_url": "https://api.anthropic.com/v1/messages/batches/msgbatch_1/results",
}  # fmt: skip
CLAUDE_LINES = [
    *(
        {"custom_id": f"c{number}", "result": {"type": "succeeded", "message": message()}}
        for number in range(3)
    ),
    {"custom_id": "bad", "result": {"type": "errored", "error": {"type": "error", "error": {}}}},
]
CLAUDE_FILE = b"".join(json.dumps(line).encode() + b"\n" for line in CLAUDE_LINES)
CLAUDE_COUNTED = [
    ("msgbatch_1", JobLine(f"c{number}", "claude-sonnet-4-20250514", Usage(11, 7, batch=True)))
    for number in range(3)
]
SUBMIT = {"input_file_id": "file_in", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
REQUESTS = [
    {"custom_id": f"c{n}", "params": {"model": "claude-sonnet-4", "max_tokens": 50, "messages": MESSAGES}}
    for n in range(3)
]


# --- submit -----------------------------------------------------------------------------------------------


def test_openai_batch_is_gated_and_remembered(meter: RecordingMeter) -> None:
    """Submitting a batch passes the gate, charges nothing yet, and remembers who pays."""
    Wire(lambda _: BATCH).openai().batches.create(**SUBMIT)
    assert (meter.only.operation, meter.only.how) == ("batch", "void")
    assert meter.jobs == {"batch_1": ("alice", "openai", None)}


def test_anthropic_batch_is_gated_by_its_size(meter: RecordingMeter) -> None:
    """An Anthropic batch carries its requests: the gate sees the size of all of them."""
    Wire(lambda _: CLAUDE_BATCH).anthropic().messages.batches.create(requests=REQUESTS)
    call = meter.only
    assert (call.model, call.max_output_tokens, call.input_bytes, call.how) == (
        "claude-sonnet-4",
        150,
        39,
        "void",
    )
    assert meter.jobs == {"msgbatch_1": ("alice", "anthropic", None)}


def test_refused_batch_is_not_sent(meter: RecordingMeter) -> None:
    """A batch of a user without money is not sent, and not remembered."""
    meter.refuse = True
    wire = Wire(lambda _: BATCH)
    with pytest.raises(PaygentLimitExceeded):
        wire.openai().batches.create(**SUBMIT)
    assert (wire.sent, meter.jobs) == ([], {})


def test_async_batch_is_remembered(meter: RecordingMeter) -> None:
    """The same on an async client, and through a raw response."""
    create = Wire(lambda _: BATCH).async_openai().batches.with_raw_response.create
    asyncio.run(create(**SUBMIT))
    assert meter.jobs == {"batch_1": ("alice", "openai", None)}


# --- OpenAI results ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", ["retrieve", "list"])
def test_result_files_are_linked(meter: RecordingMeter, read: str) -> None:
    """Looking at a finished batch, alone or in a list, tells which files hold its results."""
    done = {**DONE, "id": f"batch_{read}"}
    page = {"object": "list", "data": [done], "has_more": False}
    client = Wire(lambda _: done if read == "retrieve" else page).openai()
    client.batches.retrieve("batch_1") if read == "retrieve" else list(client.batches.list())
    assert meter.links == {"file_out": f"batch_{read}", "file_err": f"batch_{read}"}


def test_result_file_is_counted_when_read(meter: RecordingMeter) -> None:
    """Each line of a result file counts at batch rates under its custom id; failed ones do not."""
    content = Wire(lambda _: FILE).openai().files.content("file_out")
    assert content.content == FILE
    assert meter.results == COUNTED


def test_async_result_file_is_counted_when_read(meter: RecordingMeter) -> None:
    """The same on an async client."""
    asyncio.run(Wire(lambda _: FILE).async_openai().files.content("file_out"))
    assert meter.results == COUNTED


@pytest.mark.parametrize("wrapper", ["with_raw_response", "with_streaming_response"])
def test_result_file_is_counted_through_wrappers(meter: RecordingMeter, wrapper: str) -> None:
    """A result file read raw, or streamed in pieces, counts too."""
    result = getattr(Wire(lambda _: FILE).openai().files, wrapper).content("file_out")
    if wrapper == "with_streaming_response":
        with result as raw:
            assert b"".join(raw.iter_bytes(64)) == FILE
    assert meter.results == COUNTED


def test_other_files_are_left_alone(meter: RecordingMeter) -> None:
    """Any other file is not taken for results."""
    Wire(lambda _: b"\x00\x01 not json").openai().files.content("file_x")
    assert meter.results == []


# --- Anthropic results ------------------------------------------------------------------------------------


def _claude(request: Any) -> Any:
    return CLAUDE_FILE if str(request.url).endswith("/results") else CLAUDE_BATCH


def test_anthropic_results_are_counted_as_read(meter: RecordingMeter) -> None:
    """The results of an Anthropic batch count while they are iterated."""
    results = Wire(_claude).anthropic().messages.batches.results("msgbatch_1")
    assert meter.results == []
    assert [entry.custom_id for entry in results] == ["c0", "c1", "c2", "bad"]
    assert meter.results == CLAUDE_COUNTED


def test_anthropic_results_left_early_count_what_was_read(meter: RecordingMeter) -> None:
    """Results read in part count in part; what a dropped iterator leaves is reported by the next call."""
    gc.collect()
    results = Wire(_claude).anthropic().messages.batches.results("msgbatch_1")
    next(results)
    next(results)
    assert meter.results == CLAUDE_COUNTED[:1]
    del results
    report_unreported(meter)
    assert meter.results == CLAUDE_COUNTED[:2]


def test_async_anthropic_results_are_counted_as_read(meter: RecordingMeter) -> None:
    """The same on an async client, and under ``beta``."""

    async def run() -> int:
        client = Wire(_claude).async_anthropic()
        first = [entry async for entry in await client.messages.batches.results("msgbatch_1")]
        second = [entry async for entry in await client.beta.messages.batches.results("msgbatch_1")]
        return len(first) + len(second)

    assert asyncio.run(run()) == 8
    assert meter.results == CLAUDE_COUNTED * 2


# --- background work --------------------------------------------------------------------------------------

# As a field of the body: older SDKs have no argument for it.
BACKGROUND = {"background": True}
QUEUED = response(id="resp_9", status="queued", usage=None, background=True)
FINISHED = response(id="resp_9", background=True)
FINISHED_USAGE = Usage(11, 7, cache_read_input_tokens=4, reasoning_output_tokens=3)


def test_background_response_is_remembered(meter: RecordingMeter) -> None:
    """A background response is not charged when it is queued, but remembered."""
    Wire(lambda _: QUEUED).openai().responses.create(model="gpt-4o-mini", input="x", extra_body=BACKGROUND)
    assert meter.only.how == "void"
    assert meter.jobs == {"resp_9": ("alice", "openai", "gpt-4o-mini")}


def test_background_response_that_is_done_is_settled(meter: RecordingMeter) -> None:
    """A background response that comes back finished is settled like any other."""
    Wire(lambda _: FINISHED).openai().responses.create(model="m", input="x", extra_body=BACKGROUND)
    assert (meter.only.how, meter.only.usage, meter.jobs) == ("exact", FINISHED_USAGE, {})


def test_polled_response_is_counted_when_done(meter: RecordingMeter) -> None:
    """Polling counts nothing while it runs, and hands on its usage under its id once it is done."""
    answers = iter([QUEUED, FINISHED])
    client = Wire(lambda _: next(answers)).openai()
    client.responses.retrieve("resp_9")
    assert meter.results == []
    client.responses.retrieve("resp_9")
    assert meter.results == [("resp_9", JobLine("resp_9", MODEL, FINISHED_USAGE))]


def test_stored_response_read_again_is_not_counted(meter: RecordingMeter) -> None:
    """Reading an ordinary, stored response again is free."""
    Wire(lambda _: response(background=False)).openai().responses.retrieve("resp_1")
    assert meter.results == []


def test_streamed_background_response_is_counted_at_its_end(meter: RecordingMeter) -> None:
    """A background response read as a stream counts with its last event."""
    done = {"type": "response.completed", "sequence_number": 1, "response": FINISHED}
    blocks = [b"event: response.completed\ndata: " + json.dumps(done).encode() + b"\n\n"]
    client = Wire(lambda _: blocks).openai()
    stream = client.get("/responses/resp_9", cast_to=object, stream=True, stream_cls=openai.Stream[object])
    assert len(list(stream)) == 1
    assert meter.results == [("resp_9", JobLine("resp_9", MODEL, FINISHED_USAGE))]


def test_run_is_remembered_and_counted_when_done(meter: RecordingMeter) -> None:
    """An Assistants run is remembered when it starts, and counted once it is done."""
    run = {"id": "run_1", "object": "thread.run", "status": "queued", "model": "gpt-4o", "usage": None}
    used = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    answers = iter([run, {**run, "status": "completed", "usage": used}])
    client = Wire(lambda _: next(answers)).openai()
    client.post("/threads/t1/runs", cast_to=object, body={"assistant_id": "a"})
    assert meter.jobs == {"run_1": ("alice", "openai", None)}
    client.get("/threads/t1/runs/run_1", cast_to=object)
    assert meter.results == [("run_1", JobLine("run_1", "gpt-4o", Usage(5, 2)))]
