"""OpenAI's audio: speech, transcriptions and translations."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from paygent.testing.llm_server._reply import Count, billed, counted
from paygent.testing.llm_server._values import (
    Answer,
    Json,
    Request,
    bytes_answer,
    json_answer,
    stream_answer,
    typed_event,
)
from paygent.testing.llm_server._words import count_tokens, grouped

BYTES_PER_SECOND = 16_000  # a recording is as long as its bytes at 128 kbit/s
TOKENS_PER_SECOND = 10
_FRAME = b"\xff\xfb\x90\x00" + bytes(60)  # the head of an MP3 frame, then silence


def speech(request: Request) -> Answer:
    """Answer ``POST /audio/speech``: sound without usage, or events whose last one carries it."""
    read = count_tokens(str(request.body.get("input") or ""))
    count = counted(request, read, 2 * read)
    usage, generated = billed(request, count, _plain_usage(count))
    frames = [_FRAME] * max(1, read)
    if request.body.get("stream_format") == "sse":
        return stream_answer(_speech_events(frames, usage), generated)
    return bytes_answer(b"".join(frames), "audio/mpeg", generated)


def _plain_usage(count: Count) -> Json:
    total = count.input + count.output
    return {"input_tokens": count.input, "output_tokens": count.output, "total_tokens": total}


def _speech_events(frames: list[bytes], usage: Json | None) -> Iterator[bytes]:
    for frame in frames:
        yield typed_event({"type": "speech.audio.delta", "audio": base64.b64encode(frame).decode()})
    yield typed_event({"type": "speech.audio.done", "usage": usage})


def transcript(request: Request) -> Answer:
    """
    Answer ``POST /audio/{transcriptions,translations}``.

    Whisper bills the duration, the other models tokens; plain text and subtitles carry no usage.
    """
    pieces = request.controls.reply_pieces()
    seconds = _seconds(request)
    count = counted(request, seconds * TOKENS_PER_SECOND, len(pieces))
    usage, generated = billed(request, count, _transcript_usage(request, count, seconds))
    if request.streams and not request.model.startswith("whisper"):
        return stream_answer(_transcript_events(request, pieces, usage), generated)
    body = _formatted(request, "".join(pieces), seconds, usage)
    if isinstance(body, str):
        return bytes_answer(body.encode(), "text/plain; charset=utf-8", generated)
    return json_answer(body, generated)


def _seconds(request: Request) -> int:
    size = sum(len(upload.content) for upload in request.uploads)
    return max(1, -(-size // BYTES_PER_SECOND))


def _transcript_usage(request: Request, count: Count, seconds: int) -> Json:
    if request.model.startswith("whisper"):
        return {"type": "duration", "seconds": seconds}
    details = {"audio_tokens": count.input, "text_tokens": 0}
    return {"type": "tokens", "input_token_details": details} | _plain_usage(count)


def _formatted(request: Request, text: str, seconds: int, usage: Json | None) -> Json | str:
    kind = request.body.get("response_format") or "json"
    if kind == "text":
        return text + "\n"
    if kind == "srt":
        return f"1\n00:00:00,000 --> 00:00:{seconds % 60:02},000\n{text}\n"
    if kind == "vtt":
        return f"WEBVTT\n\n00:00:00.000 --> 00:00:{seconds % 60:02}.000\n{text}\n"
    if kind == "verbose_json":
        return _verbose(request, text, seconds) | {"usage": usage}
    if kind == "diarized_json":
        return _diarized(request, text, seconds) | {"usage": usage}
    return {"text": text, "usage": usage}


def _verbose(request: Request, text: str, seconds: int) -> Json:
    segment = {
        "id": 0,
        "seek": 0,
        "start": 0.0,
        "end": float(seconds),
        "text": text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": -0.1,
        "compression_ratio": 1.0,
        "no_speech_prob": 0.0,
    }
    task = "translate" if request.path.endswith("/translations") else "transcribe"
    length = float(seconds)
    return {"task": task, "language": "english", "duration": length, "text": text, "segments": [segment]}


def _diarized(request: Request, text: str, seconds: int) -> Json:
    segment = {"id": request.new_id("seg_"), "type": "transcript.text.segment", "speaker": "A", "text": text}
    span = {"start": 0.0, "end": float(seconds)}
    return {"task": "transcribe", "duration": float(seconds), "text": text, "segments": [segment | span]}


def _transcript_events(request: Request, pieces: tuple[str, ...], usage: Any) -> Iterator[bytes]:
    for text in grouped(pieces, request.controls.chunks):
        yield typed_event({"type": "transcript.text.delta", "delta": text})
    yield typed_event({"type": "transcript.text.done", "text": "".join(pieces), "usage": usage})
