"""The values that pass between the shells (server, stub transport) and the bodies: request and answer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from paygent.testing.llm_server._controls import Controls

Json = dict[str, Any]
JSON_TYPE = "application/json"
SSE_TYPE = "text/event-stream; charset=utf-8"

_NAME = re.compile(rb'\bname="([^"]*)"')
_FILENAME = re.compile(rb'\bfilename="([^"]*)"')


class Generated(NamedTuple):
    """What a provider bills: tokens of one answer, or totals of many. Input includes cached tokens."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def plus(self, other: Generated) -> Generated:
        """Add *other* to this."""
        return Generated(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


@dataclass(frozen=True, slots=True)
class Upload:
    """A file of a multipart form."""

    filename: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """
    One request as the bodies see it.

    ``path`` has no version prefix and no query; ``headers`` have lower-case names; ``body`` is the JSON
    object or the fields of the form; ``new_id`` makes an id with the given prefix, unique for ever.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: Json
    controls: Controls
    now_s: int
    new_id: Callable[[str], str]
    uploads: tuple[Upload, ...] = ()
    query: str = ""
    deployment: str | None = None

    @property
    def model(self) -> str:
        """The model asked for; Azure, Bedrock and Vertex name it in the path."""
        return str(self.body.get("model") or self.deployment or "gpt-4o-mini")

    @property
    def streams(self) -> bool:
        """Whether the caller asked for a stream (forms send the flag as text)."""
        return self.body.get("stream") in (True, "true")


@dataclass(frozen=True, slots=True)
class Answer:
    """
    One answer: ``body`` at once, or ``chunks`` one after the other.

    ``generated`` maps a model to what it cost; ``controls`` say how to pace and where to break.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": JSON_TYPE})
    body: bytes = b""
    chunks: tuple[bytes, ...] | None = None
    generated: Mapping[str, Generated] = field(default_factory=dict)
    controls: Controls = field(default_factory=Controls)


def dumps(value: Any) -> bytes:
    """Encode as the providers do: no spaces, UTF-8."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def json_answer(value: Any, generated: Mapping[str, Generated] | None = None, status: int = 200) -> Answer:
    """Answer with one JSON value."""
    return Answer(status=status, body=dumps(value), generated=generated or {})


def bytes_answer(
    content: bytes, content_type: str, generated: Mapping[str, Generated] | None = None
) -> Answer:
    """Answer with bytes that are not JSON."""
    return Answer(headers={"content-type": content_type}, body=content, generated=generated or {})


def stream_answer(chunks: Iterable[bytes], generated: Mapping[str, Generated] | None = None) -> Answer:
    """Answer with server-sent events."""
    return Answer(headers={"content-type": SSE_TYPE}, chunks=tuple(chunks), generated=generated or {})


def event(data: Any, name: str | None = None) -> bytes:
    """Encode one server-sent event."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + (data if isinstance(data, bytes) else dumps(data)) + b"\n\n"


def typed_event(data: Json) -> bytes:
    """Encode one event that is named by its own ``type``."""
    return event(data, data["type"])


def read_body(content_type: str, body: bytes) -> tuple[Json, tuple[Upload, ...]]:
    """
    Read a JSON object or a multipart form.

    Raises:
        ValueError: The body is not what its content type says.
    """
    if content_type.startswith("multipart/form-data"):
        return _read_form(content_type, body)
    if not body or not content_type.startswith(JSON_TYPE):
        return {}, ()
    value = json.loads(body)
    return (value if isinstance(value, dict) else {"value": value}), ()


def _read_form(content_type: str, body: bytes) -> tuple[Json, tuple[Upload, ...]]:
    boundary = content_type.partition("boundary=")[2].strip('"').encode()
    fields: Json = {}
    uploads = []
    for part in body.split(b"--" + boundary)[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        filename = _FILENAME.search(head)
        if filename:
            uploads.append(Upload(filename[1].decode(), content.removesuffix(b"\r\n")))
            continue
        name = _NAME.search(head)
        if name:
            fields[name[1].decode()] = content.removesuffix(b"\r\n").decode()
    return fields, tuple(uploads)
