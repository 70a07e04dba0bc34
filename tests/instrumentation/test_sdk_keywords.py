"""The per-call keywords, on the methods of the real SDKs."""

from __future__ import annotations

import asyncio
import inspect
import uuid
from types import ModuleType
from typing import Any

import pytest
from sdk_fakes import MESSAGES, Wire, chat, chat_events, message, message_events
from sdk_recording import RecordingMeter

from paygent.context import Payer, as_payer, paygent_context
from paygent.instrumentation import keywords, seam
from paygent.instrumentation.carrier import HEADER

CHAT: dict[str, Any] = {"model": "m", "messages": MESSAGES}
MESSAGE: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": MESSAGES}
KEYWORDS: dict[str, Any] = {
    "paygent_user_id": "bob",
    "paygent_session_id": "s1",
    "paygent_metadata": {"feature": "chat"},
}


def _paid(meter: RecordingMeter) -> tuple[Any, Any, Any]:
    payer = meter.only.payer
    return payer.user_id, payer.session_id, payer.metadata


def _assert_clean(wire: Wire) -> None:
    """Assert that nothing of ours was sent."""
    for request in wire.sent:
        assert not [name for name in request.headers if "paygent" in name.lower()]
        assert b"paygent" not in request.content
        assert b"bob" not in request.content


def test_keywords_say_who_pays(meter: RecordingMeter) -> None:
    """The keywords win over the context, and nothing of them is sent to the provider."""
    wire = Wire(lambda _: chat())
    wire.openai().chat.completions.create(**CHAT, **KEYWORDS)
    assert _paid(meter) == ("bob", "s1", {"feature": "chat"})
    _assert_clean(wire)


def test_keywords_on_async_methods(meter: RecordingMeter) -> None:
    """Async methods take them too."""
    wire = Wire(lambda _: message())
    asyncio.run(wire.async_anthropic().messages.create(**MESSAGE, **KEYWORDS))
    assert _paid(meter) == ("bob", "s1", {"feature": "chat"})
    _assert_clean(wire)


@pytest.mark.parametrize("wrapper", ["with_raw_response", "with_streaming_response"])
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_keywords_through_raw_wrappers(meter: RecordingMeter, wrapper: str, provider: str) -> None:
    """They go through raw wrappers, beside the header that those send."""
    wire = Wire(lambda _: chat() if provider == "openai" else message())
    if provider == "openai":
        result = getattr(wire.openai().chat.completions, wrapper).create(**CHAT, **KEYWORDS)
    else:
        result = getattr(wire.anthropic().messages, wrapper).create(**MESSAGE, **KEYWORDS)
    if wrapper == "with_streaming_response":
        with result:
            pass
    assert _paid(meter) == ("bob", "s1", {"feature": "chat"})
    _assert_clean(wire)


def test_keywords_through_stream_managers_that_send_later(meter: RecordingMeter) -> None:
    """They go through a stream manager, also one that is entered in another context."""
    wire = Wire(lambda _: message_events())
    manager = wire.anthropic().messages.stream(**MESSAGE, **KEYWORDS)
    with paygent_context("carol"), manager as stream:
        stream.get_final_message()
    assert _paid(meter) == ("bob", "s1", {"feature": "chat"})
    _assert_clean(wire)


def test_keywords_through_the_chat_stream_helper(meter: RecordingMeter) -> None:
    """They go through ``chat.completions.stream()``."""
    wire = Wire(lambda _: chat_events(usage=True))
    completions = wire.openai().chat.completions
    owner = completions if hasattr(completions, "stream") else wire.openai().beta.chat.completions
    with owner.stream(**CHAT, **KEYWORDS) as stream:
        list(stream)
    assert _paid(meter) == ("bob", "s1", {"feature": "chat"})
    _assert_clean(wire)


def test_session_of_the_context_is_not_taken_over_for_another_user(meter: RecordingMeter) -> None:
    """A call for another user has not the session of the context's user; for the same user it has."""
    client = Wire(lambda _: chat()).openai()
    with paygent_context("alice", session_id="hers", metadata={"a": 1}):
        client.chat.completions.create(**CHAT, paygent_user_id="bob")
        client.chat.completions.create(**CHAT, paygent_user_id="alice", paygent_metadata={"b": 2})
        client.chat.completions.create(**CHAT, paygent_session_id="other")
    paid = [(call.payer.user_id, call.payer.session_id, call.payer.metadata) for call in meter.calls]
    assert paid == [
        ("bob", None, {"a": 1}),
        ("alice", "hers", {"a": 1, "b": 2}),
        ("alice", "other", {"a": 1}),
    ]


def test_call_inside_a_metered_block_counts_once(meter: RecordingMeter) -> None:
    """Inside ``wrap()`` the keywords do not make a second call of it."""
    with as_payer(Payer("alice", metered=True)):
        Wire(lambda _: chat()).openai().chat.completions.create(**CHAT, **KEYWORDS)
    assert meter.calls == []


def test_user_none_means_nobody(meter: RecordingMeter) -> None:
    """``paygent_user_id=None`` is nobody, also inside a context."""
    Wire(lambda _: chat()).openai().chat.completions.create(**CHAT, paygent_user_id=None)
    assert meter.calls == []


def test_numbers_and_uuids_are_taken_as_text(meter: RecordingMeter) -> None:
    """A user id that is a number or a UUID is its text."""
    client, key = Wire(lambda _: chat()).openai(), uuid.uuid4()
    client.chat.completions.create(**CHAT, paygent_user_id=42)
    client.chat.completions.create(**CHAT, paygent_user_id=key)
    assert [call.payer.user_id for call in meter.calls] == ["42", str(key)]


@pytest.mark.parametrize(
    "given,error",
    [
        ({"paygent_user_id": "x" * 513}, ValueError),
        ({"paygent_user_id": "\ud800"}, ValueError),
        ({"paygent_session_id": object()}, TypeError),
        ({"paygent_metadata": "text"}, TypeError),
    ],
)
def test_impossible_keywords_are_refused(meter: RecordingMeter, given: Any, error: type[Exception]) -> None:
    """A value that cannot be right is refused before anything is sent."""
    wire = Wire(lambda _: chat())
    with pytest.raises(error):
        wire.openai().chat.completions.create(**CHAT, **given)
    assert wire.sent == []


def test_misspelt_keyword_is_left_out_and_warned_of_once(
    meter: RecordingMeter, caplog: pytest.LogCaptureFixture
) -> None:
    """A misspelt keyword is not sent, does not break the call, and is named in the log one time."""
    wire = Wire(lambda _: chat())
    client = wire.openai()
    for _ in range(2):
        client.chat.completions.create(**CHAT, paygent_usr_id="x")
    assert sum("paygent_usr_id" in record.getMessage() for record in caplog.records) == 1
    _assert_clean(wire)
    assert [call.payer.user_id for call in meter.calls] == ["alice", "alice"]


def test_unprintable_metadata_is_carried(meter: RecordingMeter) -> None:
    """Metadata that is no JSON, and a user id in any script, arrive."""
    Wire(lambda _: chat()).openai().chat.completions.create(
        **CHAT, paygent_user_id="ユーザー 😀", paygent_metadata={"at": uuid.UUID(int=1)}
    )
    assert meter.only.payer.user_id == "ユーザー 😀"
    assert str(meter.only.payer.metadata["at"]) == str(uuid.UUID(int=1))


def test_callers_headers_are_kept(meter: RecordingMeter) -> None:
    """The caller's own ``extra_headers`` are sent, and his dictionary is left alone."""
    wire, headers = Wire(lambda _: chat()), {"x-mine": "1"}
    wire.openai().chat.completions.create(**CHAT, extra_headers=headers, **KEYWORDS)
    assert wire.sent[0].headers["x-mine"] == "1"
    assert headers == {"x-mine": "1"}


def test_keywords_on_a_get_are_not_sent(meter: RecordingMeter) -> None:
    """On a method that costs nothing they are taken off, and that is all."""
    wire = Wire(lambda _: {"object": "list", "data": []})
    wire.openai().models.list(**KEYWORDS)
    _assert_clean(wire)
    assert meter.calls == []


def test_signatures_stay(meter: RecordingMeter) -> None:
    """A wrapped method keeps its signature, its name and its kind."""
    client, other = Wire(lambda _: chat()).openai(), Wire(lambda _: chat()).async_openai()
    create = client.chat.completions.create
    assert "messages" in inspect.signature(create).parameters
    assert create.__name__ == "create"
    patched = inspect.iscoroutinefunction(other.embeddings.create), inspect.iscoroutinefunction(create)
    seam.uninstrument()
    assert patched == (inspect.iscoroutinefunction(other.embeddings.create), False)


def test_keywords_are_refused_again_afterwards(meter: RecordingMeter) -> None:
    """Once uninstrumented, the methods are the SDK's own."""
    seam.uninstrument()
    with pytest.raises(TypeError):
        Wire(lambda _: chat()).openai().chat.completions.create(**CHAT, **KEYWORDS)


def test_stand_ins_of_optional_packages_are_not_loaded(meter: RecordingMeter) -> None:
    """A module that holds a stand-in for a package that is not installed gets its keywords all the same."""

    class StandIn:
        @property  # type: ignore[misc]  # as openai._utils.LazyProxy does
        def __class__(self) -> type:
            raise ImportError("numpy is not installed")

    class SyncAPIResource:
        pass

    class Embeddings(SyncAPIResource):
        __module__ = "sdk.embeddings"

        def create(self, *, extra_headers: Any = None) -> Any:
            return extra_headers

    module = ModuleType("sdk.embeddings")
    vars(module).update(np=StandIn(), Embeddings=Embeddings)
    keywords.patch_module(module)
    assert HEADER in Embeddings().create(paygent_user_id="bob")  # type: ignore[call-arg]


def test_missing_arguments_are_still_told(meter: RecordingMeter) -> None:
    """The SDK's own check of required arguments still speaks."""
    with pytest.raises(TypeError, match="messages"):
        Wire(lambda _: chat()).openai().chat.completions.create(model="m", **KEYWORDS)


def test_websocket_surface_is_told_of(meter: RecordingMeter) -> None:
    """``realtime.connect()`` never reaches the seam: the meter is told, and the keywords are taken off."""
    client = Wire(lambda _: chat()).openai()
    owner = client.realtime if hasattr(client, "realtime") else client.beta.realtime
    owner.connect(model="gpt-realtime", **KEYWORDS)
    assert meter.warned == ["openai realtime.connect()"]
