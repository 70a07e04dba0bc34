"""OpenAI's responses: plain, streamed, in the background; their token counter and compaction."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from paygent.testing.llm_server._reply import Count, Reply, Tool, ToolCall, billed, compose, counted
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
from paygent.testing.llm_server._words import count_prompt, grouped, pieces_of


def responses_usage(count: Count) -> Json:
    """Word a count as responses do: cached and reasoning tokens are parts of the totals."""
    return {
        "input_tokens": count.input,
        "input_tokens_details": {"cached_tokens": count.cache_read, "cache_write_tokens": count.cache_write},
        "output_tokens": count.output,
        "output_tokens_details": {"reasoning_tokens": count.reasoning},
        "total_tokens": count.input + count.output,
    }


def response(request: Request, store: Store) -> Answer:
    """Answer ``POST /responses``; with ``background`` the result is there on a later GET."""
    done, generated = _completed(request)
    if request.streams:
        store.responses.put(done["id"], done)
        return stream_answer(_events(done, request.controls.chunks), generated)
    if request.body.get("background"):
        store.responses.put(done["id"], done, polls=store.polls)
        return json_answer(_unfinished(done, "queued"), generated)
    store.responses.put(done["id"], done)
    return json_answer(done, generated)


def retrieved(request: Request, store: Store, response_id: str) -> Answer | None:
    """Answer ``GET /responses/{id}``: in progress for the set number of polls, then the whole."""
    done, ready = store.responses.poll(response_id)
    if done is None:
        return None
    if "stream=true" in request.query:
        return stream_answer(_events(done, request.controls.chunks))
    return json_answer(done if ready else _unfinished(done, "in_progress"))


def cancelled(store: Store, response_id: str) -> Answer | None:
    """Answer ``POST /responses/{id}/cancel``."""
    done, _ = store.responses.poll(response_id)
    if done is None:
        return None
    stopped = _unfinished(done, "cancelled")
    store.responses.put(response_id, stopped)
    return json_answer(stopped)


def input_tokens(request: Request) -> Answer:
    """Answer ``POST /responses/input_tokens``, a free counter."""
    return json_answer({"object": "response.input_tokens", "input_tokens": _input_tokens(request)})


def compacted(request: Request) -> Answer:
    """Answer ``POST /responses/compact``: a model call whose output is one opaque item."""
    count = counted(request, _input_tokens(request), request.controls.reply_tokens)
    usage, generated = billed(request, count, responses_usage(count))
    item = {"id": request.new_id("cmp_"), "type": "compaction", "encrypted_content": "Z0FBQUFBQm8="}
    body = {
        "id": request.new_id("resp_"),
        "object": "response.compaction",
        "created_at": request.now_s,
        "output": [item],
        "usage": usage,
    }
    return json_answer(body, generated)


def _input_tokens(request: Request) -> int:
    body = request.body
    return count_prompt(body.get("instructions"), body.get("input"), body.get("tools"))


def _completed(request: Request) -> tuple[Json, dict[str, Generated]]:
    body = request.body
    reply = compose(
        request,
        messages=body.get("input"),
        tools=_tools(body),
        forced=_forced(body.get("tool_choice")),
        schema=_schema((body.get("text") or {}).get("format")),
        tokens_max=body.get("max_output_tokens"),
    )
    count = counted(request, _input_tokens(request), reply.tokens, len(reply.searches))
    usage, generated = billed(request, count, responses_usage(count))
    return _envelope(request, reply) | {"output": _output(request, reply), "usage": usage}, generated


def _tools(body: Json) -> tuple[Tool, ...]:
    tools = body.get("tools") or ()
    own = (
        Tool(tool["name"], tool.get("parameters") or {}) for tool in tools if tool.get("type") == "function"
    )
    searches = (tool for tool in tools if str(tool.get("type")).startswith("web_search"))
    return (*own, *(Tool("web_search", {}, hosted=True) for _ in searches))


def _forced(choice: Any) -> str | None:
    if isinstance(choice, dict):
        name = str(choice.get("name") or choice.get("type"))
        return "web_search" if name.startswith("web_search") else name
    return choice if choice in ("none", "required") else None


def _schema(text_format: Any) -> Json | None:
    if not isinstance(text_format, dict):
        return None
    if text_format.get("type") == "json_object":
        return {"properties": {"answer": {"type": "string"}}}
    found: Json | None = text_format.get("schema")
    return found


def _envelope(request: Request, reply: Reply) -> Json:
    body = request.body
    return {
        "id": request.new_id("resp_"),
        "object": "response",
        "created_at": request.now_s,
        "status": "incomplete" if reply.cut else "completed",
        "background": bool(body.get("background")),
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if reply.cut else None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "model": request.model,
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "previous_response_id": body.get("previous_response_id"),
        "reasoning": {"effort": None, "summary": None},
        "service_tier": body.get("service_tier") or "default",
        "store": body.get("store", True),
        "temperature": body.get("temperature", 1.0),
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
        "top_p": body.get("top_p", 1.0),
        "truncation": "disabled",
        "user": body.get("user"),
        "metadata": body.get("metadata") or {},
    }


def _output(request: Request, reply: Reply) -> list[Json]:
    items = [_search_item(request) for _ in reply.searches]
    items += [_call_item(request, call) for call in reply.calls]
    if reply.pieces:
        items.append(_message_item(request, reply))
    return items


def _search_item(request: Request) -> Json:
    action = {"type": "search", "query": "a good start", "queries": ["a good start"]}
    return {"id": request.new_id("ws_"), "type": "web_search_call", "status": "completed", "action": action}


def _call_item(request: Request, call: ToolCall) -> Json:
    return {
        "id": request.new_id("fc_"),
        "type": "function_call",
        "status": "completed",
        "call_id": request.new_id("call_"),
        "name": call.tool.name,
        "arguments": call.arguments,
    }


def _message_item(request: Request, reply: Reply) -> Json:
    return {
        "id": request.new_id("msg_"),
        "type": "message",
        "status": "incomplete" if reply.cut else "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": reply.text, "annotations": [], "logprobs": []}],
    }


def _unfinished(done: Json, status: str) -> Json:
    return done | {"status": status, "output": [], "usage": None, "incomplete_details": None}


# --- the stream -------------------------------------------------------------------------------------------


def _events(done: Json, chunks: int | None) -> Iterator[bytes]:
    for number, data in enumerate(_event_bodies(done, chunks)):
        yield typed_event(data | {"sequence_number": number})


def _event_bodies(done: Json, chunks: int | None) -> Iterator[Json]:
    started = _unfinished(done, "in_progress")
    yield {"type": "response.created", "response": started}
    yield {"type": "response.in_progress", "response": started}
    for index, item in enumerate(done["output"]):
        yield {"type": "response.output_item.added", "output_index": index, "item": _opened(item)}
        place = {"item_id": item["id"], "output_index": index}
        for data in _ITEM_EVENTS[item["type"]](item, chunks):
            yield data | place
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": f"response.{done['status']}", "response": done}


def _opened(item: Json) -> Json:
    emptied: dict[str, Json] = {"message": {"content": []}, "function_call": {"arguments": ""}}
    return item | {"status": "in_progress"} | emptied.get(item["type"], {})


def _message_events(item: Json, chunks: int | None) -> Iterator[Json]:
    part = item["content"][0]
    place = {"content_index": 0}
    yield {"type": "response.content_part.added", "part": part | {"text": ""}} | place
    for text in grouped(pieces_of(part["text"]), chunks):
        yield {"type": "response.output_text.delta", "delta": text, "logprobs": []} | place
    yield {"type": "response.output_text.done", "text": part["text"], "logprobs": []} | place
    yield {"type": "response.content_part.done", "part": part} | place


def _call_events(item: Json, _chunks: int | None) -> Iterator[Json]:
    arguments = item["arguments"]
    half = len(arguments) // 2
    for part in (arguments[:half], arguments[half:]):
        yield {"type": "response.function_call_arguments.delta", "delta": part}
    yield {"type": "response.function_call_arguments.done", "arguments": arguments, "name": item["name"]}


def _search_events(_item: Json, _chunks: int | None) -> Iterator[Json]:
    for state in ("in_progress", "searching", "completed"):
        yield {"type": f"response.web_search_call.{state}"}


_ITEM_EVENTS = {
    "message": _message_events,
    "function_call": _call_events,
    "web_search_call": _search_events,
}
