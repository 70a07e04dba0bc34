"""Anthropic's messages: plain and streamed, their token counter, and the old text completions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from paygent.testing.llm_server._reply import Count, Reply, Tool, ToolCall, billed, compose, counted
from paygent.testing.llm_server._values import (
    Answer,
    Json,
    Request,
    json_answer,
    stream_answer,
    typed_event,
)
from paygent.testing.llm_server._words import count_prompt, count_tokens, grouped, pieces_of

_SEARCHES = ("web_search_",)
_THOUGHT = "The user wants something clear and short, so I start with the main point."
_SIGNATURE = "EqQBCgIYAhIkYTJm"


def message_usage(count: Count, service_tier: str = "standard") -> Json:
    """Word a count as messages do: ``input_tokens`` is without cache reads and writes."""
    searches = {"web_search_requests": count.searches, "web_fetch_requests": 0}
    return {
        "input_tokens": max(0, count.input - count.cache_read - count.cache_write),
        "cache_creation_input_tokens": count.cache_write,
        "cache_read_input_tokens": count.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": count.cache_write,
            "ephemeral_1h_input_tokens": 0,
        },
        "output_tokens": count.output,
        "output_tokens_details": {"thinking_tokens": count.reasoning},
        "server_tool_use": searches if count.searches else None,
        "service_tier": service_tier,
        "inference_geo": "not_available",
    }


def message(request: Request, service_tier: str = "standard") -> Answer:
    """Answer ``POST /messages``."""
    reply = _reply(request)
    content = _content(request, reply)
    thought = sum(count_tokens(block["thinking"]) for block in content if block["type"] == "thinking")
    count = counted(request, _input_tokens(request), reply.tokens + thought, len(reply.searches))
    if thought and request.controls.usage is None:
        count = replace(count, reasoning=count.reasoning + thought)
    usage, generated = billed(request, count, message_usage(count, service_tier))
    whole = {
        "id": request.new_id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "content": content,
        "stop_reason": _stop_reason(reply),
        "stop_sequence": None,
        "usage": usage,
    }
    if request.streams:
        return stream_answer(map(typed_event, _events(whole, request.controls.chunks)), generated)
    return json_answer(whole, generated)


def tokens_counted(request: Request) -> Answer:
    """Answer ``POST /messages/count_tokens``, a free counter."""
    return json_answer({"input_tokens": _input_tokens(request)})


def text_completion(request: Request) -> Answer:
    """Answer ``POST /complete``, which reports no usage."""
    whole = request.controls.reply_pieces()
    tokens_max = int(request.body.get("max_tokens_to_sample") or 256)
    reply = Reply(whole[:tokens_max], cut=tokens_max < len(whole))
    count = counted(request, count_prompt(request.body.get("prompt")), reply.tokens)
    _, generated = billed(request, count, message_usage(count))
    body = {
        "id": request.new_id("compl_"),
        "type": "completion",
        "completion": reply.text,
        "stop_reason": "max_tokens" if reply.cut else "stop_sequence",
        "model": request.model,
    }
    if request.streams:
        return stream_answer(_completion_events(request, body, reply), generated)
    return json_answer(body, generated)


def _completion_events(request: Request, body: Json, reply: Reply) -> Iterator[bytes]:
    for text in grouped(reply.pieces, request.controls.chunks):
        yield typed_event(body | {"completion": text, "stop_reason": None})
    yield typed_event(body | {"completion": ""})


def _input_tokens(request: Request) -> int:
    body = request.body
    return count_prompt(body.get("system"), body.get("messages"), body.get("tools"))


def _reply(request: Request) -> Reply:
    body = request.body
    output_format = (body.get("output_config") or {}).get("format") or body.get("output_format") or {}
    return compose(
        request,
        messages=_without_results(body.get("messages", [])),
        tools=tuple(_tool(tool) for tool in body.get("tools") or ()),
        forced=_forced(body.get("tool_choice") or {}),
        schema=output_format.get("schema"),
        tokens_max=body.get("max_tokens"),
    )


def _without_results(messages: Any) -> Any:
    """Drop a last message that brings tool results: it is the user's by role, but asks for nothing."""
    content = messages[-1].get("content") if messages else None
    brings = isinstance(content, list) and any(part.get("type") == "tool_result" for part in content)
    return [] if brings else messages


def _tool(tool: Json) -> Tool:
    hosted = str(tool.get("type", "")).startswith(_SEARCHES)
    return Tool(tool["name"], tool.get("input_schema") or {}, hosted)


def _forced(choice: Json) -> str | None:
    kind = choice.get("type")
    if kind == "tool":
        return str(choice.get("name"))
    return {"any": "required", "none": "none"}.get(str(kind))


def _stop_reason(reply: Reply) -> str:
    return "max_tokens" if reply.cut else "tool_use" if reply.calls else "end_turn"


def _content(request: Request, reply: Reply) -> list[Json]:
    blocks: list[Json] = []
    if (request.body.get("thinking") or {}).get("type") in ("enabled", "adaptive"):
        blocks.append({"type": "thinking", "thinking": _THOUGHT, "signature": _SIGNATURE})
    for call in reply.searches:
        blocks += _search_blocks(request, call)
    if reply.pieces:
        blocks.append({"type": "text", "text": reply.text, "citations": None})
    blocks += [_tool_block(request, call) for call in reply.calls]
    return blocks


def _tool_block(request: Request, call: ToolCall) -> Json:
    arguments = json.loads(call.arguments)
    return {"type": "tool_use", "id": request.new_id("toolu_"), "name": call.tool.name, "input": arguments}


def _search_blocks(request: Request, call: ToolCall) -> list[Json]:
    use_id = request.new_id("srvtoolu_")
    found = {
        "type": "web_search_result",
        "title": "A good start",
        "url": "https://example.com/a-good-start",
        "encrypted_content": "Z29vZA==",
        "page_age": None,
    }
    return [
        {"type": "server_tool_use", "id": use_id, "name": call.tool.name, "input": {"query": "a good start"}},
        {"type": "web_search_tool_result", "tool_use_id": use_id, "content": [found]},
    ]


# --- the stream -------------------------------------------------------------------------------------------


def _events(whole: Json, chunks: int | None) -> Iterator[Json]:
    usage = whole["usage"]
    first = usage and usage | {"output_tokens": 1}
    opened = whole | {"content": [], "stop_reason": None, "usage": first}
    yield {"type": "message_start", "message": opened}
    yield {"type": "ping"}
    for index, block in enumerate(whole["content"]):
        yield {"type": "content_block_start", "index": index, "content_block": _opened(block)}
        for delta in _deltas(block, chunks):
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    delta = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": delta, "usage": usage and _final_usage(usage)}
    yield {"type": "message_stop"}


def _final_usage(usage: Json) -> Json:
    """Return the cumulative usage of ``message_delta``, which names neither tier nor the split of writes."""
    start_only = ("service_tier", "cache_creation", "inference_geo", "speed")
    return {key: value for key, value in usage.items() if key not in start_only}


def _opened(block: Json) -> Json:
    emptied: dict[str, Json] = {
        "text": {"text": ""},
        "thinking": {"thinking": "", "signature": ""},
        "tool_use": {"input": {}},
        "server_tool_use": {"input": {}},
    }
    return block | emptied.get(block["type"], {})


def _deltas(block: Json, chunks: int | None) -> Iterator[Json]:
    kind = block["type"]
    if kind == "text":
        for text in grouped(pieces_of(block["text"]), chunks):
            yield {"type": "text_delta", "text": text}
    elif kind == "thinking":
        for text in grouped(pieces_of(block["thinking"]), chunks):
            yield {"type": "thinking_delta", "thinking": text}
        yield {"type": "signature_delta", "signature": block["signature"]}
    elif kind in ("tool_use", "server_tool_use"):
        yield from _input_deltas(block["input"])


def _input_deltas(arguments: Any) -> Iterator[Json]:
    text = json.dumps(arguments)
    half = len(text) // 2
    for part in ("", text[:half], text[half:]):
        yield {"type": "input_json_delta", "partial_json": part}
