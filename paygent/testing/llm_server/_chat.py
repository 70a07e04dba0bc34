"""OpenAI's chat completions and legacy completions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from paygent.testing.llm_server._reply import Count, Reply, Tool, ToolCall, billed, compose, counted
from paygent.testing.llm_server._values import Answer, Json, Request, event, json_answer, stream_answer
from paygent.testing.llm_server._words import count_prompt, grouped

DONE = event(b"[DONE]")
FINGERPRINT = "fp_paygent_testing"


def chat_usage(count: Count) -> Json:
    """Word a count as chat completions do: cached and reasoning tokens are parts of the totals."""
    return {
        "prompt_tokens": count.input,
        "completion_tokens": count.output,
        "total_tokens": count.input + count.output,
        "prompt_tokens_details": {
            "cached_tokens": count.cache_read,
            "cache_write_tokens": count.cache_write,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": count.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def chat_completion(request: Request) -> Answer:
    """Answer ``POST /chat/completions``."""
    replies = _replies(request)
    messages, tools = request.body.get("messages", []), request.body.get("tools")
    output = sum(reply.tokens for reply in replies)
    count = counted(request, count_prompt(messages, tools), output)
    usage, generated = billed(request, count, chat_usage(count))
    if request.streams:
        return stream_answer(_chat_chunks(request, replies, usage), generated)
    choices = [_choice(request, index, reply) for index, reply in enumerate(replies)]
    body = _envelope(request, "chat.completion", "chatcmpl-") | {"choices": choices, "usage": usage}
    return json_answer(body, generated)


def _replies(request: Request) -> list[Reply]:
    body = request.body
    reply = compose(
        request,
        messages=body.get("messages", []),
        tools=_tools(body),
        forced=_forced(body.get("tool_choice")),
        schema=_schema(body.get("response_format")),
        tokens_max=body.get("max_completion_tokens") or body.get("max_tokens"),
    )
    return [reply] * int(body.get("n") or 1)


def _tools(body: Json) -> tuple[Tool, ...]:
    functions = [tool["function"] for tool in body.get("tools") or () if "function" in tool]
    return tuple(Tool(each["name"], each.get("parameters") or {}) for each in functions)


def _forced(choice: Any) -> str | None:
    if isinstance(choice, dict):
        return str(choice.get("function", {}).get("name"))
    return choice if choice in ("none", "required") else None


def _schema(response_format: Any) -> Json | None:
    if not isinstance(response_format, dict):
        return None
    if response_format.get("type") == "json_object":
        return {"properties": {"answer": {"type": "string"}}}
    found: Json | None = response_format.get("json_schema", {}).get("schema")
    return found


def _envelope(request: Request, kind: str, prefix: str) -> Json:
    return {
        "id": request.new_id(prefix),
        "object": kind,
        "created": request.now_s,
        "model": request.model,
        "service_tier": request.body.get("service_tier") or "default",
        "system_fingerprint": FINGERPRINT,
    }


def _finish_reason(reply: Reply) -> str:
    return "length" if reply.cut else "tool_calls" if reply.calls else "stop"


def _choice(request: Request, index: int, reply: Reply) -> Json:
    message: Json = {"role": "assistant", "content": reply.text or None, "refusal": None, "annotations": []}
    if reply.calls:
        message["tool_calls"] = [_tool_call(request, call) for call in reply.calls]
    return {"index": index, "message": message, "logprobs": None, "finish_reason": _finish_reason(reply)}


def _tool_call(request: Request, call: ToolCall) -> Json:
    function = {"name": call.tool.name, "arguments": call.arguments}
    return {"id": request.new_id("call_"), "type": "function", "function": function}


def _chat_chunks(request: Request, replies: list[Reply], usage: Json | None) -> Iterator[bytes]:
    reported = bool((request.body.get("stream_options") or {}).get("include_usage"))
    envelope = _envelope(request, "chat.completion.chunk", "chatcmpl-")
    tail = {"usage": None} if reported else {}
    if request.deployment:  # Azure starts with a chunk that has neither choices nor usage
        yield event(envelope | {"id": "", "model": "", "choices": [], "prompt_filter_results": []})
    for index, reply in enumerate(replies):
        for delta, reason in _deltas(request, reply):
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
            yield event(envelope | {"choices": [choice]} | tail)
    if reported and usage is not None:
        yield event(envelope | {"choices": [], "usage": usage})
    yield DONE


def _deltas(request: Request, reply: Reply) -> Iterator[tuple[Json, str | None]]:
    yield {"role": "assistant", "content": "" if reply.pieces else None, "refusal": None}, None
    for text in grouped(reply.pieces, request.controls.chunks):
        yield {"content": text}, None
    for index, call in enumerate(reply.calls):
        opening = _tool_call(request, call)
        arguments = opening["function"]["arguments"]
        opening["function"]["arguments"] = ""
        yield {"tool_calls": [{"index": index} | opening]}, None
        half = len(arguments) // 2
        for part in (arguments[:half], arguments[half:]):
            yield {"tool_calls": [{"index": index, "function": {"arguments": part}}]}, None
    yield {}, _finish_reason(reply)


# --- legacy completions -----------------------------------------------------------------------------------


def completion(request: Request) -> Answer:
    """Answer ``POST /completions``; ``max_tokens`` is 16 unless given, as the API documents."""
    body = request.body
    tokens_max = int(body.get("max_tokens") or 16)
    whole = request.controls.reply_pieces()
    reply = Reply(whole[:tokens_max], cut=tokens_max < len(whole))
    prompt = body.get("prompt") or ""
    prompts = len(prompt) if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else 1
    replies = [reply] * (prompts * int(body.get("n") or 1))
    count = counted(request, count_prompt(prompt), sum(each.tokens for each in replies))
    usage, generated = billed(request, count, chat_usage(count))
    envelope = _envelope(request, "text_completion", "cmpl-")
    if request.streams:
        return stream_answer(_completion_chunks(request, envelope, replies, usage), generated)
    choices = [_text_choice(index, each.text, _finish_reason(each)) for index, each in enumerate(replies)]
    return json_answer(envelope | {"choices": choices, "usage": usage}, generated)


def _text_choice(index: int, text: str, reason: str | None) -> Json:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}


def _completion_chunks(
    request: Request, envelope: Json, replies: list[Reply], usage: Json | None
) -> Iterator[bytes]:
    reported = bool((request.body.get("stream_options") or {}).get("include_usage"))
    tail = {"usage": None} if reported else {}
    for index, reply in enumerate(replies):
        for text in grouped(reply.pieces, request.controls.chunks):
            yield event(envelope | {"choices": [_text_choice(index, text, None)]} | tail)
        yield event(envelope | {"choices": [_text_choice(index, "", _finish_reason(reply))]} | tail)
    if reported and usage is not None:
        yield event(envelope | {"choices": [], "usage": usage})
    yield DONE
