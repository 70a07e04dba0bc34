"""The seam: every way into the SDKs, gated and settled once."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import re
import subprocess
import sys
from typing import Any

import anthropic
import openai
import pydantic
import pytest
from sdk_fakes import MESSAGES, MESSAGES_BYTES, Wire, chat, message, response
from sdk_recording import RecordingMeter

from paygent.context import paygent_context, paygent_exempt
from paygent.core.errors import PaygentLimitExceeded
from paygent.core.usage import Usage
from paygent.instrumentation import imports, seam
from paygent.meter import active

CHAT = {"model": "gpt-4o-mini", "messages": MESSAGES}


def _chat(wire: Wire, way: str, **more: Any) -> Any:
    """Make one chat call, sync or async."""
    if way == "sync":
        return wire.openai().chat.completions.create(**CHAT, **more)
    return asyncio.run(wire.async_openai().chat.completions.create(**CHAT, **more))


def _message(wire: Wire, way: str, **more: Any) -> Any:
    """Make one Anthropic call, sync or async."""
    given = {"model": "claude-sonnet-4", "max_tokens": 100, "messages": MESSAGES, **more}
    if way == "sync":
        return wire.anthropic().messages.create(**given)
    return asyncio.run(wire.async_anthropic().messages.create(**given))


both = pytest.mark.parametrize("way", ["sync", "async"])


@both
def test_chat_call_is_gated_and_settled_once(meter: RecordingMeter, way: str) -> None:
    """A chat call is asked for before it is sent, and settled with the usage that the provider reports."""
    result = _chat(Wire(lambda _: chat()), way, max_tokens=50, n=2)
    call = meter.only
    assert result.choices[0].message.content == "Hello"
    assert (call.provider, call.operation, call.model) == ("openai", "chat", "gpt-4o-mini")
    assert (call.input_bytes, call.max_output_tokens) == (MESSAGES_BYTES, 100)
    assert call.settled == [("exact", Usage(11, 7), 0, "gpt-4o-mini-2024-07-18", ())]
    assert call.attempts == 1


@both
def test_message_is_gated_and_settled_once(meter: RecordingMeter, way: str) -> None:
    """An Anthropic message is asked for before it is sent, and settled with the usage reported."""
    _message(Wire(lambda _: message()), way)
    call = meter.only
    assert (call.provider, call.operation, call.model) == ("anthropic", "messages", "claude-sonnet-4")
    assert call.settled == [("exact", Usage(11, 7), 0, "claude-sonnet-4-20250514", ())]


@both
@pytest.mark.parametrize("make", [_chat, _message])
def test_refused_call_is_not_sent(meter: RecordingMeter, way: str, make: Any) -> None:
    """A call that the gate refuses never reaches the provider."""
    meter.refuse = True
    wire = Wire(lambda _: chat())
    with pytest.raises(PaygentLimitExceeded):
        make(wire, way)
    assert wire.sent == []


@both
def test_provider_error_reaches_the_bracket_and_the_caller(meter: RecordingMeter, way: str) -> None:
    """A provider error comes out as the SDK's own, and the call is settled by it."""
    with pytest.raises(openai.InternalServerError):
        _chat(Wire(lambda _: 500), way)
    assert meter.only.how == "void"


def test_retries_are_one_call(meter: RecordingMeter) -> None:
    """The SDK's retries happen below the seam: one gate, one settlement."""
    answers = iter([500, 500, chat()])
    wire = Wire(lambda _: next(answers))
    client = wire.openai(max_retries=2)
    client._calculate_retry_timeout = lambda *_, **__: 0.0
    client.chat.completions.create(**CHAT)
    assert len(wire.sent) == 3
    assert meter.only.how == "exact"


def test_free_and_get_requests_pass(meter: RecordingMeter) -> None:
    """Moderations, token counts and listings are neither gated nor charged."""
    meter.refuse = True
    Wire(lambda _: {"id": "m", "model": "m", "results": []}).openai().moderations.create(input="x")
    Wire(lambda _: {"object": "list", "data": []}).openai().models.list()
    Wire(lambda _: {"input_tokens": 3}).anthropic().messages.count_tokens(model="c", messages=MESSAGES)
    assert meter.calls == []


def test_nobody_pays_nothing_is_asked(meter: RecordingMeter) -> None:
    """An exempt call passes as if Paygent were not there."""
    with paygent_exempt():
        _chat(Wire(lambda _: chat()), "sync")
    assert meter.calls == []


def test_unknown_path_is_charged_by_its_usage(meter: RecordingMeter) -> None:
    """A path that nobody has heard of is settled with the usage block of its answer."""
    Wire(lambda _: chat()).openai().post("/new/thing", cast_to=object, body={"model": "m", "input": "abc"})
    assert (meter.only.how, meter.only.usage) == ("exact", Usage(11, 7))


def test_unknown_path_without_usage_is_free(meter: RecordingMeter) -> None:
    """A path that nobody has heard of, and that reports no usage, costs nothing."""
    Wire(lambda _: {"ok": True}).openai().post("/new/other", cast_to=object, body={"a": 1})
    assert meter.only.how == "void"


def test_unknown_path_is_warned_of_once(meter: RecordingMeter, caplog: pytest.LogCaptureFixture) -> None:
    """A path that nobody has heard of is named in the log, one time."""
    client = Wire(lambda _: {"ok": True}).openai()
    for _ in range(3):
        client.post("/never/heard/of", cast_to=object, body={})
    said = [r.getMessage() for r in caplog.records if r.name.startswith("paygent")]  # the SDK logs its own
    assert sum("/never/heard/of" in message for message in said) == 1


def test_answer_without_usage_is_estimated(meter: RecordingMeter) -> None:
    """Unknown never becomes zero: a completion without a usage block is settled by estimate."""
    _chat(Wire(lambda _: chat(usage=None)), "sync")
    assert meter.only.how == "estimated"


@pytest.mark.parametrize("usage", [None, {}, [], "x", {"prompt_tokens": None}, {"prompt_tokens_details": 3}])
def test_odd_usage_never_reaches_the_caller(meter: RecordingMeter, usage: Any) -> None:
    """A usage block of any shape leaves the caller's answer alone, and the call is settled once."""
    result = _chat(Wire(lambda _: chat(usage=usage)), "sync")
    assert result.choices[0].message.content == "Hello"
    assert meter.only.how is not None


class _BrokenMeter(RecordingMeter):
    def call(self, *_: Any) -> Any:
        raise RuntimeError("a fault of ours")


def test_our_fault_lets_the_call_through(meter: RecordingMeter) -> None:
    """A fault of the meter is logged; the call is made once, and answered."""
    active.activate(_BrokenMeter())  # type: ignore[arg-type]  # records what the engine would do
    wire = Wire(lambda _: chat())
    assert _chat(wire, "sync").choices[0].message.content == "Hello"
    assert len(wire.sent) == 1


def test_body_of_the_caller_is_left_alone(meter: RecordingMeter) -> None:
    """What the caller passes in is the same afterwards, also where usage is asked for in his stream."""
    meter.include_usage = True
    messages, body = copy.deepcopy(MESSAGES), {"extra": 1}
    wire = Wire(lambda _: [b"data: [DONE]\n\n"])
    list(wire.openai().chat.completions.create(model="m", messages=messages, stream=True, extra_body=body))
    assert wire.body["stream_options"] == {"include_usage": True}
    assert (messages, body) == (MESSAGES, {"extra": 1})


# --- clients and copies -----------------------------------------------------------------------------------


def test_clients_made_before_are_metered() -> None:
    """Clients, touched resources, bound methods and raw wrappers made before the patch are metered too."""
    seam.uninstrument()
    client = Wire(lambda _: chat()).openai()
    bound = client.chat.completions.create
    raw = client.chat.completions.with_raw_response.create
    before, recording = active.get(), RecordingMeter()
    active.activate(recording)  # type: ignore[arg-type]  # records what the engine would do
    seam.instrument()
    try:
        with paygent_context("alice"):
            for method in (client.chat.completions.create, bound, raw):
                method(**CHAT)
    finally:
        seam.uninstrument()
        active.activate(before)
    assert [call.how for call in recording.calls] == ["exact"] * 3


def test_copies_with_options_are_metered(meter: RecordingMeter) -> None:
    """A copy of a client made by ``with_options`` is metered."""
    Wire(lambda _: chat()).openai().with_options(timeout=3).chat.completions.create(**CHAT)
    assert meter.only.how == "exact"


def test_module_level_client_is_metered(meter: RecordingMeter, monkeypatch: pytest.MonkeyPatch) -> None:
    """``openai.chat.completions.create`` without a client of one's own is metered."""
    client = Wire(lambda _: chat()).openai()
    monkeypatch.setattr(openai, "api_key", "test")
    monkeypatch.setattr(openai, "http_client", client._client)
    openai.chat.completions.create(**CHAT)
    assert meter.only.how == "exact"


def test_azure_is_metered(meter: RecordingMeter) -> None:
    """An Azure client is metered by the model of the request, whatever its path becomes."""
    wire = Wire(lambda _: chat())
    wire.openai(
        openai.AzureOpenAI, azure_endpoint="https://x.openai.azure.com", api_version="2024-10-21"
    ).chat.completions.create(**CHAT)
    assert "/deployments/gpt-4o-mini/" in str(wire.sent[0].url)
    assert (meter.only.model, meter.only.how) == ("gpt-4o-mini", "exact")


def test_vertex_is_metered(meter: RecordingMeter) -> None:
    """A Vertex client is metered by the model of the request, which it takes out of the body."""
    wire = Wire(lambda _: message())
    client = wire.anthropic(anthropic.AnthropicVertex, region="us-east5", project_id="p", access_token="t")
    client.messages.create(model="claude-sonnet-4@20250514", max_tokens=5, messages=MESSAGES)
    assert "rawPredict" in str(wire.sent[0].url)
    assert (meter.only.model, meter.only.how) == ("claude-sonnet-4@20250514", "exact")


def test_bedrock_is_metered(meter: RecordingMeter) -> None:
    """A Bedrock client is metered by the model of the request, which it moves into the path."""
    wire = Wire(lambda _: message())
    has_key = "api_key" in inspect.signature(anthropic.AnthropicBedrock).parameters
    keys = {"api_key": "k"} if has_key else {"aws_access_key": "a", "aws_secret_key": "s"}
    client = wire.anthropic(anthropic.AnthropicBedrock, aws_region="us-east-1", **keys)
    client.messages.create(model="anthropic.claude-sonnet-4-v1:0", max_tokens=5, messages=MESSAGES)
    assert "/model/" in str(wire.sent[0].url)
    assert (meter.only.model, meter.only.how) == ("anthropic.claude-sonnet-4-v1:0", "exact")


# --- putting it in place ----------------------------------------------------------------------------------


def test_second_instrument_does_not_stack(meter: RecordingMeter) -> None:
    """Instrumenting twice gates a call once."""
    assert seam.instrument() == seam.instrument()
    _chat(Wire(lambda _: chat()), "sync")
    assert meter.only.attempts == 1


def test_uninstrument_restores_the_sdk(meter: RecordingMeter) -> None:
    """Afterwards the SDKs' own attributes are back, and nothing is metered."""
    patched = openai._base_client.SyncAPIClient.request
    assert seam.is_instrumented()
    assert seam.uninstrument() == 4
    assert openai._base_client.SyncAPIClient.request is not patched
    assert not seam.is_instrumented()
    _chat(Wire(lambda _: chat()), "sync")
    assert meter.calls == []


def test_foreign_wrapper_on_top_is_left_in_place(meter: RecordingMeter) -> None:
    """A wrapper that somebody put over ours stays; ours beneath goes quiet, and wakes without stacking."""
    owner = openai._base_client.SyncAPIClient
    ours = owner.request

    @functools.wraps(ours)
    def theirs(*args: Any, **kwargs: Any) -> Any:
        return ours(*args, **kwargs)

    owner.request = theirs  # type: ignore[method-assign]  # as another instrumentor would
    try:
        seam.uninstrument()
        _chat(Wire(lambda _: chat()), "sync")
        assert owner.request is theirs
        assert meter.calls == []
        seam.instrument()
        _chat(Wire(lambda _: chat()), "sync")
        assert meter.only.how == "exact"
    finally:
        owner.request = ours  # type: ignore[method-assign]  # as it was


def test_twins_have_one_signature() -> None:
    """The sync and the async wrapper take the same, and both are short."""
    sync, twin = (make(lambda self, cast_to, options: None, "openai") for make in _TWINS)
    plain = [inspect.signature(f, follow_wrapped=False) for f in (sync, twin)]
    assert plain[0] == plain[1]
    assert all(len(inspect.getsource(make).splitlines()) < 25 for make in _TWINS)


def test_twins_differ_by_await_only() -> None:
    """The async wrapper reads like the sync one with ``async`` and ``await``, once it knows the user."""
    sync, twin = (inspect.getsource(make) for make in _TWINS)
    twin = re.sub(r" +payer = .*?_identified\(payer\)\n", "", twin, flags=re.DOTALL)
    assert twin.replace("async with", "with").replace("async def", "def").replace(
        "await ", ""
    ) == sync.replace("_sync_request", "_async_request")


_TWINS = (seam._sync_request, seam._async_request)

_LATE_IMPORT = """
import sys
from paygent.instrumentation import seam
assert seam.instrument() == []
assert not {"openai", "anthropic", "httpx", "httpx2"} & set(sys.modules)
import openai
assert seam.instrument() == ["openai.AsyncAPIClient.request", "openai.SyncAPIClient.request"]
assert openai._base_client.__spec__.loader is openai._base_client.__loader__
assert type(openai._base_client.__loader__).__name__ == "SourceFileLoader"
print("ok")
"""


def test_sdk_is_patched_when_imported_later() -> None:
    """Instrumenting imports no SDK; one imported later is patched as it arrives, and keeps its loader."""
    done = subprocess.run([sys.executable, "-c", _LATE_IMPORT], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("ok", 0), done.stderr


_BEING_IMPORTED = """
import importlib, operator, sys, threading, time
from paygent import Paygent
imported, half, *methods = sys.argv[1:]
sdk, there = half.split(".")[0], threading.Event()

class Pause:
    def find_spec(self, name, path=None, target=None):
        if half in sys.modules and name.startswith(sdk) and name != half and not there.is_set():
            there.set()
            time.sleep(0.3)

sys.meta_path.insert(0, Pause())
thread = threading.Thread(target=importlib.import_module, args=(imported,))
thread.start()
assert there.wait(60)
pg = Paygent.init(ledger="memory://")
thread.join()
for method in methods:
    print(hasattr(operator.attrgetter(method)(sys.modules[half]), "__wrapped__"))
pg.shutdown()
"""
_CLIENTS = ("SyncAPIClient.request", "AsyncAPIClient.request")


@pytest.mark.parametrize(
    ("imported", "half", "methods"),
    [
        ("openai", "openai._base_client", _CLIENTS),
        ("anthropic", "anthropic._base_client", _CLIENTS),
        ("openai.resources.responses.responses",) * 2 + (("Responses.create",),),  # loaded with its first use
    ],
    ids=["openai", "anthropic", "a part"],
)
def test_sdk_that_another_thread_is_importing_is_patched(
    imported: str, half: str, methods: tuple[str, ...]
) -> None:
    """An SDK, or a part of it, is patched, too, that another thread has half imported when Paygent begins."""
    command = [sys.executable, "-c", _BEING_IMPORTED, imported, half, *methods]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.returncode) == (["True"] * len(methods), 0), done.stderr


def test_imports_of_other_threads_see_no_change_of_the_hooks(meter: RecordingMeter) -> None:
    """Hooks are replaced and the finder stays: an import going through either of them goes on undisturbed."""
    hooks, finders = imports._hooks, list(sys.meta_path)
    known = dict(hooks)
    seam.uninstrument()
    seam.instrument()
    assert hooks == known
    assert sys.meta_path == finders


class _Answer(pydantic.BaseModel):
    number: int


@both
def test_answer_that_the_sdk_cannot_parse_is_charged(meter: RecordingMeter, way: str) -> None:
    """An answer that ``parse()`` refuses, or a cut one, has been billed: it is settled with its usage."""
    cut = chat()["choices"][0] | {"finish_reason": "length"}
    for answer in (chat(), chat(choices=[cut])):
        wire = Wire(lambda _, answer=answer: answer)
        client = wire.openai() if way == "sync" else wire.async_openai()
        parse = getattr(client.chat.completions, "parse", None) or client.beta.chat.completions.parse
        run = asyncio.run if way == "async" else str
        with pytest.raises((pydantic.ValidationError, openai.LengthFinishReasonError)):
            run(parse(**CHAT, response_format=_Answer))
    assert [(call.how, call.usage) for call in meter.calls] == [("exact", Usage(11, 7))] * 2


def test_responses_call_reads_details(meter: RecordingMeter) -> None:
    """A Responses call is settled with cached and reasoning tokens as parts of the totals."""
    Wire(lambda _: response()).openai().responses.create(model="gpt-4o-mini", input="Say hello")
    usage = Usage(11, 7, cache_read_input_tokens=4, reasoning_output_tokens=3)
    assert (meter.only.operation, meter.only.usage, meter.only.input_bytes) == ("responses", usage, 9)
