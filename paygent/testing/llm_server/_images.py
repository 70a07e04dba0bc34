"""OpenAI's images: GPT Image models report tokens and stream, DALL-E models report nothing."""

from __future__ import annotations

from collections.abc import Iterator

from paygent.testing.llm_server._reply import Count, billed, counted
from paygent.testing.llm_server._values import Answer, Json, Request, json_answer, stream_answer, typed_event
from paygent.testing.llm_server._words import count_tokens

# One transparent pixel.
PNG_BASE64 = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
# Output tokens of a square image, as OpenAI's image guide lists them for gpt-image-1.
_OUTPUT_TOKENS = {"low": 272, "medium": 1056, "high": 4160}
_INPUT_IMAGE_TOKENS = 323  # a square input image at low fidelity


def image(request: Request) -> Answer:
    """Answer ``POST /images/{generations,edits,variations}``."""
    model = str(request.body.get("model") or "dall-e-2")
    if not model.startswith(("gpt-image", "chatgpt-image")):
        return json_answer({"created": request.now_s, "data": _dall_e_images(request)})
    count, block = _image_usage(request)
    usage, generated = billed(request, count, block)
    if request.streams:
        return stream_answer(_events(request, usage), generated)
    data = [{"b64_json": PNG_BASE64} for _ in range(_images(request))]
    return json_answer(
        {"created": request.now_s, "data": data} | _look(request) | {"usage": usage}, generated
    )


def _images(request: Request) -> int:
    return int(request.body.get("n") or 1)


def _dall_e_images(request: Request) -> list[Json]:
    if request.body.get("response_format") == "b64_json":
        one = {"b64_json": PNG_BASE64}
    else:
        one = {"url": f"data:image/png;base64,{PNG_BASE64}"}
    return [one] * _images(request)


def _image_usage(request: Request) -> tuple[Count, Json]:
    text = count_tokens(str(request.body.get("prompt") or ""))
    pictures = len(request.uploads) * _INPUT_IMAGE_TOKENS
    output = _OUTPUT_TOKENS[_look(request)["quality"]] * _images(request)
    count = counted(request, text + pictures, output)
    block = {
        "input_tokens": count.input,
        "input_tokens_details": {"text_tokens": max(0, count.input - pictures), "image_tokens": pictures},
        "output_tokens": count.output,
        "output_tokens_details": {"image_tokens": count.output, "text_tokens": 0},
        "total_tokens": count.input + count.output,
    }
    return count, block


def _look(request: Request) -> Json:
    body = request.body
    quality, size = body.get("quality"), body.get("size")
    return {
        "background": "opaque",
        "output_format": body.get("output_format") or "png",
        "quality": quality if quality in _OUTPUT_TOKENS else "medium",
        "size": size if size and size != "auto" else "1024x1024",
    }


def _events(request: Request, usage: Json | None) -> Iterator[bytes]:
    kind = "image_edit" if request.path.endswith("/edits") else "image_generation"
    common = _look(request) | {"b64_json": PNG_BASE64, "created_at": request.now_s}
    for index in range(int(request.body.get("partial_images") or 0)):
        yield typed_event(common | {"type": f"{kind}.partial_image", "partial_image_index": index})
    yield typed_event(common | {"type": f"{kind}.completed", "usage": usage})
