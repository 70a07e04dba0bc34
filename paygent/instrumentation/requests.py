"""What a request says before it is sent: its model, the size of its prompt, and its own caps."""

from __future__ import annotations

import os
from collections.abc import Mapping
from io import BytesIO
from typing import Any, NamedTuple

from paygent.core.usage import Usage, image_variant
from paygent.instrumentation._fields import fields, items, text, utf8_length
from paygent.instrumentation.operations import Operation

# Bytes of text that cost about as much as one picture (a few hundred to 1 600 tokens, at 4 bytes each).
PICTURE_BYTES = 4_000
# Base64 characters that cost about as much as one byte of text: sound at 10 tokens a second, and documents.
_SOUND_RATIO = 100
_DOCUMENT_RATIO = 20
# Uploaded sound is taken as 128 kbit/s, where its length is not known otherwise.
_SOUND_BYTES_PER_SECOND = 16_000
# Requests of a batch whose size is read; the rest is taken to be like them.
_BATCH_SAMPLE = 200

# Fields of a body that are no part of the prompt.
_NOT_PROMPT = frozenset(
    (
        "model",
        "metadata",
        "user",
        "stream_options",
        "service_tier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "previous_response_id",
        "include",
        "modalities",
        "reasoning_effort",
        "verbosity",
        "voice",
        "size",
        "quality",
        "stop",
        "stop_sequences",
        "encoding_format",
    )
)
_PICTURES = frozenset(("image_url", "input_image", "image", "image_file", "computer_screenshot"))
_DOCUMENTS = frozenset(("document", "file", "input_file"))
_NOTHING: dict[str, Any] = {}
_made = tuple.__new__


class Ask(NamedTuple):
    """One request in brief; ``units`` is what it says of units other than tokens."""

    model: str | None
    input_bytes: int
    max_output_tokens: int | None
    units: Usage | None = None


def body_of(options: Any) -> Mapping[str, Any]:
    """Return the JSON body that *options* will be sent with, ``extra_body`` included."""
    body, extra = options.json_data, getattr(options, "extra_json", None)
    if type(body) is not dict and not isinstance(body, Mapping):  # asked of a type first: the ABC is dear
        body = _NOTHING
    return {**body, **extra} if extra and isinstance(extra, Mapping) else body


def ask_of(operation: Operation, body: Mapping[str, Any], options: Any = None) -> Ask:
    """Read *body* without consuming anything: iterators are left alone."""
    if operation.kind == "batch":
        return _ask_of_batch(body)
    input_bytes = 0
    for name, value in body.items():
        kind = type(value)
        if kind is str:
            if name not in _NOT_PROMPT:
                input_bytes += len(value) if value.isascii() else utf8_length(value)
        elif (kind is list or kind is dict) and name not in _NOT_PROMPT:
            input_bytes += text_bytes(value)
    model = body.get("model")
    if model.__class__ is not str or not model:
        model = text(model)
    special = _SPECIAL.get(operation.name)
    if special is None:
        return _made(Ask, (model, input_bytes, _output_cap(body), None))  # see usage.openai_usage
    return special(model, input_bytes, body, options)


def _output_cap(body: Mapping[str, Any]) -> int | None:
    cap = body.get("max_completion_tokens")
    if cap is None:
        cap = body.get("max_tokens")
    if cap is None:
        cap = body.get("max_output_tokens", body.get("max_tokens_to_sample"))
    if type(cap) is not int or cap < 0:  # what means nothing must not shrink what is reserved
        return None
    n = body.get("n")
    return cap * n if type(n) is int and n > 1 else cap


def text_bytes(value: Any) -> int:
    """
    Return about how many bytes of text *value* (messages, tools, input) puts into the prompt.

    Pictures, sound and documents count as the text that costs as many tokens, not as their encoding.
    """
    kind = type(value)
    if kind is str:
        return len(value) if value.isascii() else utf8_length(value)
    if kind is dict:
        return _object_bytes(value)
    if kind is list or kind is tuple:
        total = 0
        for item in value:
            if item.__class__ is not dict or "type" in item:
                total += text_bytes(item)
                continue
            # A message: on the path of every call, hence without a function of its own.
            for part in item.values():
                if part.__class__ is str:
                    total += len(part) if part.isascii() else utf8_length(part)
                elif part is not None:
                    total += text_bytes(part)
        return total
    if value is None:
        return 0
    if kind is int or kind is float or kind is bool:
        return 1
    return _object_bytes(fields(value))


def said_bytes(answer: Mapping[str, Any]) -> int:
    """Return about how many bytes of text an answer holds: of any of the APIs, one that reports no usage."""
    return text_bytes(answer.get("choices") or answer.get("output") or answer.get("content"))


def _object_bytes(parts: Mapping[str, Any]) -> int:
    kind = parts.get("type")
    if kind is not None and kind.__class__ is str:
        if kind in _PICTURES:
            return PICTURE_BYTES
        if kind == "input_audio":
            return PICTURE_BYTES + _encoded(parts, "input_audio", "data") // _SOUND_RATIO
        if kind in _DOCUMENTS:
            return _document_bytes(parts)
    total = 0
    for value in parts.values():
        if value.__class__ is str:
            total += len(value) if value.isascii() else utf8_length(value)
        elif value is not None:
            total += text_bytes(value)
    return total


def _document_bytes(parts: Mapping[str, Any]) -> int:
    source = fields(parts.get("source"))
    if source.get("type") == "text":
        return text_bytes(source.get("data"))
    if source.get("type") == "content":
        return text_bytes(source.get("content"))
    encoded = _encoded(parts, "source", "data") + _encoded(parts, "file", "file_data")
    direct = parts.get("file_data")
    if isinstance(direct, str):
        encoded += len(direct)
    return PICTURE_BYTES + encoded // _DOCUMENT_RATIO


def _encoded(parts: Mapping[str, Any], holder: str, name: str) -> int:
    data = fields(parts.get(holder)).get(name)
    return len(data) if isinstance(data, (str, bytes)) else 0


def _ask_of_embeddings(model: str | None, input_bytes: int, body: Mapping[str, Any], options: Any) -> Ask:
    del options
    given = body.get("input")
    if isinstance(given, list) and given and not isinstance(given[0], str):
        # Token ids, or lists of them: one token each.
        input_bytes = 4 * sum(len(item) if isinstance(item, list) else 1 for item in given)
    return Ask(model, input_bytes, 0)


def _ask_of_images(model: str | None, input_bytes: int, body: Mapping[str, Any], options: Any) -> Ask:
    pictures = len(items(getattr(options, "files", None)))
    wanted = body.get("n")
    made = wanted if type(wanted) is int and wanted > 0 else 1
    variant = image_variant(text(body.get("quality")), text(body.get("size")))
    units = Usage(images=made, service_tier=variant)
    return Ask(model, input_bytes + pictures * PICTURE_BYTES, None, units)


def _ask_of_speech(model: str | None, input_bytes: int, body: Mapping[str, Any], options: Any) -> Ask:
    del options
    return Ask(model, input_bytes, None, Usage(characters=len(text(body.get("input")) or "")))


def _ask_of_transcription(model: str | None, input_bytes: int, body: Mapping[str, Any], options: Any) -> Ask:
    del body
    return Ask(model, input_bytes, None, Usage(seconds=_uploaded_bytes(options) / _SOUND_BYTES_PER_SECOND))


def _ask_of_video(model: str | None, input_bytes: int, body: Mapping[str, Any], options: Any) -> Ask:
    del options
    try:
        seconds = float(body.get("seconds") or 4)
    except (TypeError, ValueError):
        seconds = 4.0
    return Ask(model, input_bytes, None, Usage(seconds=seconds if 0 < seconds < 86_400 else 4.0))


def _ask_of_run(model: str | None, input_bytes: int, body: Mapping[str, Any], options: Any) -> Ask:
    del options
    cap = body.get("max_completion_tokens")
    return Ask(model, input_bytes, cap if type(cap) is int and cap >= 0 else None)


_SPECIAL = {
    "embeddings": _ask_of_embeddings,
    "images": _ask_of_images,
    "speech": _ask_of_speech,
    "transcription": _ask_of_transcription,
    "video": _ask_of_video,
    "run": _ask_of_run,
}


def _uploaded_bytes(options: Any) -> int:
    """Return the size of the uploaded files, as far as it is known without reading them."""
    files = getattr(options, "files", None)
    entries = list(files.values()) if isinstance(files, Mapping) else [entry[-1] for entry in items(files)]
    return sum(_file_bytes(entry) for entry in entries)


def _file_bytes(entry: Any) -> int:
    content = entry[1] if isinstance(entry, tuple) and len(entry) > 1 else entry
    if isinstance(content, (bytes, bytearray)):
        return len(content)
    if isinstance(content, BytesIO):
        return content.getbuffer().nbytes
    try:
        return os.fstat(content.fileno()).st_size
    except (AttributeError, OSError, TypeError, ValueError):
        return 0


def _ask_of_batch(body: Mapping[str, Any]) -> Ask:
    """Read the requests of an Anthropic batch; an OpenAI batch is a file, of which nothing is known here."""
    requests = items(body.get("requests"))
    if not requests:
        return Ask(None, 0, 0)
    sample = [fields(fields(request).get("params")) for request in requests[:_BATCH_SAMPLE]]
    share = len(requests) / len(sample)
    read = sum(text_bytes(params.get("messages")) + text_bytes(params.get("system")) for params in sample)
    caps = sum(_output_cap(params) or 0 for params in sample)
    return Ask(text(sample[0].get("model")), int(read * share), int(caps * share))
