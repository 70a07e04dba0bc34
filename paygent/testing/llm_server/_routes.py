"""Which body answers which path."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from paygent.testing.llm_server import (
    _audio,
    _chat,
    _embeddings,
    _files,
    _images,
    _message_batches,
    _messages,
    _responses,
    _threads,
)
from paygent.testing.llm_server._controls import COUNTED
from paygent.testing.llm_server._reply import billed, counted
from paygent.testing.llm_server._store import Store
from paygent.testing.llm_server._values import (
    Answer,
    Generated,
    Json,
    Request,
    json_answer,
    stream_answer,
    typed_event,
)

MODELS = ("gpt-4o", "gpt-4o-mini", "text-embedding-3-small", "claude-sonnet-5-5", "claude-haiku-5-5")

_AZURE = re.compile(r"/openai/deployments/(?P<model>[^/]+)(?P<rest>/.*)")
_BEDROCK = re.compile(r"/model/(?P<model>[^/]+)/invoke")
_VERTEX = re.compile(r"/v1/projects/.*/models/(?P<model>[^/:]+):(stream)?[rR]awPredict")
_VERSION = re.compile(r"/(openai/v1|openai|v1)(?=/)")


def normalised(path: str) -> tuple[str, str | None]:
    """Return *path* without its version prefix, and the model where Azure, Bedrock or Vertex put it there."""
    azure = _AZURE.fullmatch(path)
    if azure:
        return azure["rest"], azure["model"]
    vertex = _VERTEX.fullmatch(path)
    if vertex:
        counts = vertex["model"] == "count-tokens"
        return ("/messages/count_tokens" if counts else "/messages"), vertex["model"]
    bedrock = _BEDROCK.fullmatch(path)
    if bedrock:
        return "/messages", bedrock["model"]
    return _VERSION.sub("", path, count=1), None


def routed(request: Request, store: Store) -> Answer | None:
    """Answer *request*; ``None`` where a GET names what is not there."""
    handler = _FIXED.get((request.method, request.path))
    if handler is not None:
        return handler(request, store)
    for method, pattern, of_id in _WITH_ID:
        match = pattern.fullmatch(request.path) if method == request.method else None
        if match:
            # A GET of an unknown id fails; POSTs are permissive, so that any method of an SDK can be called.
            return of_id(request, store, match[1]) or (None if method == "GET" else generic(request))
    return generic(request)


def generic(request: Request) -> Answer:
    """Answer anything else with an object of many common fields; billed where the controls name tokens."""
    name = request.path.strip("/").rpartition("/")[2] or "object"
    body: Json = {
        "id": request.new_id("obj_"),
        "object": name,
        "type": name,
        "created": request.now_s,
        "created_at": request.now_s,
        "status": "completed",
        "model": request.model,
        "data": [],
        "has_more": False,
        "deleted": request.method == "DELETE",
    }
    controls = request.controls
    generated: dict[str, Generated] = {}
    if controls.usage is not None or controls.usage_json is not COUNTED:
        count = counted(request, 0, 0)
        usage, generated = billed(request, count, _responses.responses_usage(count))
        body["usage"] = usage
    if request.streams:
        return stream_answer([typed_event(body), _chat.DONE], generated)
    return json_answer(body, generated)


def _models(request: Request, _store: Store) -> Answer:
    listed = [_model(request, name) for name in MODELS]
    return json_answer({"object": "list", "data": listed, "has_more": False})


def _model(request: Request, name: str) -> Json:
    return {"id": name, "object": "model", "created": request.now_s, "owned_by": "paygent.testing"}


def _files_posted(request: Request, store: Store) -> Answer:
    # Anthropic has a files API of its own at the same path.
    if "anthropic-version" in request.headers:
        return generic(request)
    return _files.uploaded(request, store)


def _batch_posted(request: Request, store: Store) -> Answer:
    def run(url: str, body: Json) -> Answer:
        path, _ = normalised(url)
        answer = routed(_part(request, path, body), store)
        assert answer is not None  # only a GET may find nothing
        return answer

    return _files.batch_created(request, store, run)


def _message_batch_posted(request: Request, store: Store) -> Answer:
    def run(params: Json) -> Answer:
        return _messages.message(_part(request, "/messages", params), "batch")

    return _message_batches.created(request, store, run)


def _part(request: Request, path: str, body: Json) -> Request:
    """One request of a batch; its answer is read, so it is never a stream."""
    return replace(request, path=path, body={**body, "stream": False})


def _plain(answer: Callable[[Request], Answer]) -> Callable[[Request, Store], Answer]:
    return lambda request, _store: answer(request)


def _stored(answer: Callable[[Store, str], Answer | None]) -> Callable[[Request, Store, str], Answer | None]:
    return lambda _request, store, thing_id: answer(store, thing_id)


_FIXED: dict[tuple[str, str], Callable[[Request, Store], Answer]] = {
    ("GET", "/models"): _models,
    ("POST", "/chat/completions"): _plain(_chat.chat_completion),
    ("POST", "/completions"): _plain(_chat.completion),
    ("POST", "/responses"): _responses.response,
    ("POST", "/responses/input_tokens"): _plain(_responses.input_tokens),
    ("POST", "/responses/compact"): _plain(_responses.compacted),
    ("POST", "/embeddings"): _plain(_embeddings.embedding),
    ("POST", "/moderations"): _plain(_embeddings.moderation),
    ("POST", "/images/generations"): _plain(_images.image),
    ("POST", "/images/edits"): _plain(_images.image),
    ("POST", "/images/variations"): _plain(_images.image),
    ("POST", "/audio/speech"): _plain(_audio.speech),
    ("POST", "/audio/transcriptions"): _plain(_audio.transcript),
    ("POST", "/audio/translations"): _plain(_audio.transcript),
    ("POST", "/files"): _files_posted,
    ("GET", "/files"): lambda _request, store: _files.file_list(store),
    ("POST", "/batches"): _batch_posted,
    ("GET", "/batches"): lambda _request, store: _files.batch_list(store),
    ("POST", "/threads"): _plain(_threads.thread_created),
    ("POST", "/threads/runs"): _threads.run_created,
    ("POST", "/messages"): _plain(_messages.message),
    ("POST", "/messages/count_tokens"): _plain(_messages.tokens_counted),
    ("POST", "/messages/batches"): _message_batch_posted,
    ("POST", "/complete"): _plain(_messages.text_completion),
}

_OfId = Callable[[Request, Store, str], "Answer | None"]
_WITH_ID: list[tuple[str, re.Pattern[str], _OfId]] = [
    (method, re.compile(pattern), answer)
    for method, pattern, answer in (
        ("GET", "/responses/([^/]+)", _responses.retrieved),
        ("POST", "/responses/([^/]+)/cancel", _stored(_responses.cancelled)),
        ("GET", "/files/([^/]+)", _stored(_files.file_info)),
        ("GET", "/files/([^/]+)/content", _stored(_files.file_content)),
        ("GET", "/batches/([^/]+)", _stored(_files.batch_info)),
        ("POST", "/batches/([^/]+)/cancel", _stored(_files.batch_cancelled)),
        ("POST", "/threads/([^/]+)/runs", _threads.run_created),
        ("POST", "/threads/([^/]+)/runs/[^/]+/submit_tool_outputs", _threads.run_created),
        ("GET", "/threads/[^/]+/runs/([^/]+)", _stored(_threads.run_info)),
        ("GET", "/messages/batches/([^/]+)", _stored(_message_batches.info)),
        ("GET", "/messages/batches/([^/]+)/results", _stored(_message_batches.results)),
        ("POST", "/messages/batches/([^/]+)/cancel", _stored(_message_batches.cancelled)),
        ("GET", "/models/([^/]+)", lambda request, _store, name: json_answer(_model(request, name))),
    )
]
