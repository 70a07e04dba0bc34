"""
Usage blocks of the providers, normalised to one :class:`~paygent.core.usage.Usage`.

The functions take what the SDKs hand out: a parsed model, a dictionary, a bare usage block or ``None``. They
never raise on an odd shape: null details count as 0, a missing usage block is ``None``, never a zero. Numbers
are passed on as reported, also negative ones: the engine judges them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

from paygent.core.usage import Usage, image_variant
from paygent.instrumentation._fields import count, fields, items, text

UsageReader = Callable[[Any], "Usage | None"]
ToolsReader = Callable[[Any], "tuple[str, ...]"]

_made = tuple.__new__

# Iterations whose tokens Anthropic leaves out of the top-level fields (it documents them as billed apart).
_UNCOUNTED_ITERATIONS = ("compaction", "advisor_message")

# What Anthropic reports of calls that were kept to no region.
_ANYWHERE = ("global", "not_available")


def openai_usage(obj: Any) -> Usage | None:
    """
    Read the usage of an OpenAI answer: chat, responses, completions, embeddings, images, audio.

    Shape: ``prompt_tokens``/``completion_tokens`` or ``input_tokens``/``output_tokens``, the details being
    parts of these totals; ``{"type": "duration", "seconds": 1.5}`` for audio billed by time; images without
    a usage block are counted. What the hosted tools of a response report is added.
    """
    answer = obj if type(obj) is dict else fields(obj)
    block = answer.get("usage")
    if block is None:
        return _openai_without_block(answer)
    usage = _openai_block(fields(block), text(answer.get("service_tier")))
    if usage is None or "choices" in answer:
        return usage
    if "output" in answer:
        return _with_hosted_tools(usage, answer)
    return _with_pictures(usage, answer) if _is_of_pictures(answer) else usage


def _openai_without_block(answer: Mapping[str, Any]) -> Usage | None:
    if "prompt_tokens" in answer or "input_tokens" in answer or answer.get("type") == "duration":
        return _openai_block(answer, None)
    duration = answer.get("duration")
    if duration is not None and "text" in answer:
        return Usage(seconds=_seconds(duration))
    pictures = items(answer.get("data"))
    if pictures and "created" in answer and _is_picture(fields(pictures[0])):
        return Usage(images=len(pictures), service_tier=_kind_of_picture(answer))
    return None


def _kind_of_picture(answer: Mapping[str, Any]) -> str | None:
    """Return what the answer says of the kind of its pictures; of DALL-E's, only the request does."""
    quality, size = text(answer.get("quality")), text(answer.get("size"))
    return image_variant(quality, size) if quality and size else None


def _is_picture(item: Mapping[str, Any]) -> bool:
    return "b64_json" in item or "url" in item


def _is_of_pictures(answer: Mapping[str, Any]) -> bool:
    """Return whether *answer* is one of the images API: its answer, or the event that ends its stream."""
    kind = answer.get("type")
    if kind is None:
        return "created" in answer and "data" in answer
    return isinstance(kind, str) and kind.startswith("image_")


def _with_pictures(usage: Usage, answer: Mapping[str, Any]) -> Usage:
    """Complete the usage of drawing: where no details say otherwise, all the output is pictures."""
    if not fields(answer.get("usage")).get("output_tokens_details"):
        usage = usage._replace(output_image_tokens=usage.output_tokens)
    drawing = answer.get("svg_usage")
    return usage if drawing is None else _with_drawing(usage, fields(drawing))


def _openai_block(block: Mapping[str, Any], service_tier: str | None) -> Usage | None:
    prompt = block.get("prompt_tokens")
    if prompt is not None:
        output, inside, outside = (
            block.get("completion_tokens"),
            "prompt_tokens_details",
            "completion_tokens_details",
        )
    else:
        prompt, output = block.get("input_tokens"), block.get("output_tokens")
        inside, outside = "input_tokens_details", "output_tokens_details"
    if prompt is None and output is None:
        return _openai_other_units(block)
    # Transcriptions spell it in the singular.
    read = block.get(inside) or block.get("input_token_details")
    written = block.get(outside) or block.get("output_token_details")
    if read is None and written is None:
        return Usage(count(prompt), count(output), service_tier=service_tier)
    parts, made_of = fields(read), fields(written)
    has_parts = any(parts.values()) or any(made_of.values())
    if not has_parts and prompt.__class__ is int and output.__class__ is int:
        # Neither cached nor reasoning nor audio, as with most calls: nothing to look up in the details.
        return _made(Usage, (
            prompt, output, 0, 0, 0, 0, 0, 0, 0, 0.0, 0, 0, service_tier, False, 0, 0, 0, None,
        ))  # fmt: skip
    part, made = parts.get, made_of.get
    reported = (
        prompt, output, part("cached_tokens"), part("cache_write_tokens"), part("audio_tokens"),
        made("audio_tokens"), made("reasoning_tokens"), part("image_tokens"), made("image_tokens"),
    )  # fmt: skip
    given, output, cached, cache_written, heard, spoken, reasoning, seen, drawn = [
        tokens if type(tokens) is int else 0 if tokens is None else count(tokens) for tokens in reported
    ]
    # Made without its constructor, which is a function in Python: this is on the path of every call.
    return _made(Usage, (
        given, output, cached, cache_written, 0, heard, spoken, reasoning, 0, 0.0, 0, 0, service_tier, False,
        seen, drawn, 0, None,
    ))  # fmt: skip


def _openai_other_units(block: Mapping[str, Any]) -> Usage | None:
    if block.get("seconds") is not None:
        return Usage(seconds=_seconds(block["seconds"]))
    if block.get("total_tokens") is not None:
        return Usage(count(block["total_tokens"]))
    return None


def _seconds(value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        return 0.0
    return seconds if isfinite(seconds) else 0.0


def _with_drawing(usage: Usage, drawing: Mapping[str, Any]) -> Usage:
    """Add the tokens of SVG authoring, which OpenAI reports apart from the rendering."""
    return usage._replace(
        input_tokens=usage.input_tokens + count(drawing.get("input_tokens")),
        output_tokens=usage.output_tokens + count(drawing.get("output_tokens")),
        reasoning_output_tokens=usage.reasoning_output_tokens + count(drawing.get("reasoning_tokens")),
    )


def _with_hosted_tools(usage: Usage, answer: Mapping[str, Any]) -> Usage:
    """Add what the tools of a response report next to its model: searches, and the tokens of pictures."""
    report = answer.get("tool_usage")
    tools = None if report is None else fields(report)
    billed = None if tools is None else fields(tools.get("web_search")).get("num_requests")
    searches = _searches(answer["output"]) if billed is None else count(billed)
    if searches:
        preview = searches if _searches_by_preview(answer.get("tools")) else 0
        usage = usage._replace(web_search_requests=searches, web_search_preview_requests=preview)
    return usage if tools is None else _with_drawn(usage, fields(tools.get("image_gen")))


def _searches_by_preview(tools: Any) -> bool:
    """Return whether a response, which repeats its *tools*, had OpenAI's preview of web search among them."""
    kinds = (text(fields(tool).get("type")) or "" for tool in items(tools))
    return any(kind.startswith("web_search_preview") for kind in kinds)


def _with_drawn(usage: Usage, drawn: Mapping[str, Any]) -> Usage:
    """Add the tokens of the image tool: its output is pictures, its input costs what the model's own does."""
    made, given = count(drawn.get("output_tokens")), count(drawn.get("input_tokens"))
    if made <= 0 and given <= 0:
        return usage
    pictures = fields(drawn.get("input_tokens_details")).get("image_tokens")
    return usage._replace(
        input_tokens=usage.input_tokens + given,
        output_tokens=usage.output_tokens + made,
        input_image_tokens=usage.input_image_tokens + count(pictures),
        output_image_tokens=usage.output_image_tokens + made,
    )


def _searches(output: Any) -> int:
    """Count the billed searches among Responses items; opening a page or finding in it is no search."""
    found = 0
    for item in items(output):
        item_fields = fields(item)
        if item_fields.get("type") == "web_search_call":
            action = fields(item_fields.get("action")).get("type", "search")
            found += action == "search"
    return found


def anthropic_usage(obj: Any) -> Usage | None:
    """
    Read the usage of an Anthropic answer: a message, or a usage block.

    Anthropic's ``input_tokens`` leaves out what was read from or written to the cache: it is added here.
    """
    answer = fields(obj)
    block = answer.get("usage")
    if block is not None:
        return _anthropic_block(fields(block))
    return _anthropic_block(answer) if "input_tokens" in answer or "output_tokens" in answer else None


def _anthropic_block(block: Mapping[str, Any]) -> Usage | None:
    fresh, output = block.get("input_tokens"), block.get("output_tokens")
    if fresh is None and output is None:
        return None
    read = count(block.get("cache_read_input_tokens"))
    written, written_1h = _cache_writes(block)
    tier = "fast" if block.get("speed") == "fast" else text(block.get("service_tier"))
    geo = text(block.get("inference_geo"))
    usage = Usage(
        count(fresh) + read + written,
        count(output),
        read,
        written,
        written_1h,
        reasoning_output_tokens=_thinking(block.get("output_tokens_details")),
        web_search_requests=_web_searches(block.get("server_tool_use")),
        service_tier=tier,
        batch=tier == "batch",
        inference_geo=None if geo in _ANYWHERE else geo,
    )
    steps = block.get("iterations")
    return usage if steps is None else _with_iterations(usage, steps)


def _thinking(details: Any) -> int:
    return 0 if details is None else count(fields(details).get("thinking_tokens"))


def _web_searches(server_tools: Any) -> int:
    return 0 if server_tools is None else count(fields(server_tools).get("web_search_requests"))


def _cache_writes(block: Mapping[str, Any]) -> tuple[int, int]:
    """Return the tokens written to the cache, and the part of them with a life of one hour."""
    written = block.get("cache_creation_input_tokens")
    split = block.get("cache_creation")
    if split is None:
        return count(written), 0
    lives = fields(split)
    one_hour = count(lives.get("ephemeral_1h_input_tokens"))
    if written is None:
        return one_hour + count(lives.get("ephemeral_5m_input_tokens")), one_hour
    return count(written), one_hour


def _with_iterations(usage: Usage, steps: Any) -> Usage:
    for step in items(steps):
        block = fields(step)
        part = _anthropic_block(block) if block.get("type") in _UNCOUNTED_ITERATIONS else None
        if part is not None:
            usage = usage._replace(
                input_tokens=usage.input_tokens + part.input_tokens,
                output_tokens=usage.output_tokens + part.output_tokens,
                cache_read_input_tokens=usage.cache_read_input_tokens + part.cache_read_input_tokens,
                cache_write_input_tokens=usage.cache_write_input_tokens + part.cache_write_input_tokens,
                cache_write_1h_input_tokens=usage.cache_write_1h_input_tokens
                + part.cache_write_1h_input_tokens,
            )
    return usage


def openai_tools(obj: Any) -> tuple[str, ...]:
    """
    Return the names of the tools an OpenAI answer calls, in order, once per call.

    Chat: ``tool_calls`` and the legacy ``function_call`` of every choice. Responses: the items that are
    calls; a function, custom or MCP call by its name, a hosted one (``web_search_call``) as ``web_search``.
    """
    answer = obj if obj.__class__ is dict else fields(obj)
    choices = answer.get("choices")
    if choices is None:
        return tuple(_item_names(answer.get("output")))
    names: list[str] = []
    for choice in choices if choices.__class__ is list else items(choices):
        message = fields(fields(choice).get("message"))
        calls = message.get("tool_calls")
        if calls is not None:
            names.extend(_chat_tool_name(call) for call in items(calls))
        function = message.get("function_call")
        if function is not None:
            names.append(text(fields(function).get("name")) or "function")
    return tuple(names)


def _chat_tool_name(call: Any) -> str:
    kinds = fields(call)
    for kind in ("function", "custom"):
        name = text(fields(kinds.get(kind)).get("name"))
        if name is not None:
            return name
    return text(kinds.get("type")) or "function"


def _item_names(output: Any) -> list[str]:
    names = (item_tool_name(item) for item in items(output))
    return [name for name in names if name is not None]


def item_tool_name(item: Any) -> str | None:
    """Return the name of the tool that one Responses item calls, ``None`` if the item is no call."""
    parts = fields(item)
    kind = text(parts.get("type"))
    if kind is None or not kind.endswith("_call"):
        return None
    return text(parts.get("name")) or kind[: -len("_call")]


def anthropic_tools(obj: Any) -> tuple[str, ...]:
    """Return the names of the tools an Anthropic message calls: ``tool_use``, ``server_tool_use``, MCP."""
    names = (block_tool_name(block) for block in items(fields(obj).get("content")))
    return tuple(name for name in names if name is not None)


def block_tool_name(block: Any) -> str | None:
    """Return the name of the tool that one content block calls, ``None`` if the block is no call."""
    parts = fields(block)
    kind = text(parts.get("type"))
    if kind is None or not kind.endswith("tool_use"):
        return None
    return text(parts.get("name")) or kind
