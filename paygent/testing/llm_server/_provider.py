"""The provider as one object: a request comes in as bytes, an answer goes out as a value; no socket here."""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from paygent.testing.llm_server._controls import Controls
from paygent.testing.llm_server._routes import normalised, routed
from paygent.testing.llm_server._store import Store
from paygent.testing.llm_server._values import (
    JSON_TYPE,
    Answer,
    Generated,
    Json,
    Request,
    json_answer,
    read_body,
)

_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request as it arrived: ``path`` without its query, ``headers`` in lower case, ``body`` parsed."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: Json
    when_s: float


class FakeProvider:
    """
    An OpenAI- and Anthropic-compatible provider without a transport.

    Args:
        controls: How answers are paced, sized, billed and broken, unless a request's headers say otherwise;
            may be assigned at any time.
        polls: How often background work (batches, background responses, runs) is found unfinished first.
        log_size: How many requests ``requests`` keeps.
    """

    def __init__(self, controls: Controls | None = None, *, polls: int = 0, log_size: int = 1000) -> None:
        self.controls = controls or Controls()
        self.requests: deque[RequestRecord] = deque(maxlen=log_size)
        self._totals: dict[str, Generated] = {}
        self._lock = threading.Lock()
        self._store = Store(polls=polls)
        self._ids = count(1)
        self._tag = secrets.token_hex(4)

    @property
    def generated(self) -> dict[str, Generated]:
        """
        What was generated for each model so far: requests, input and output tokens.

        The truth seen from outside: also what a caller never read, because it cut the stream. Failed
        requests generate nothing, free ones (counters, moderations) are not billed.
        """
        with self._lock:
            return dict(self._totals)

    def reset(self) -> None:
        """Forget the log and the totals; files and batches stay."""
        with self._lock:
            self._totals.clear()
        self.requests.clear()

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer one request; *path* may carry a query, header names may have any case."""
        lower = {name.lower(): value for name, value in headers.items()}
        try:
            request = self._read(method, path, lower, body)
            answer = self._outcome(request)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            return _error(400, lower, f"this request cannot be answered: {error!r}")
        self._bill(answer)
        return replace(answer, controls=request.controls)

    def _read(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Request:
        plain_path, _, query = path.partition("?")
        fields, uploads = read_body(headers.get("content-type", JSON_TYPE), body)
        self.requests.append(RequestRecord(method, plain_path, query, headers, fields, time.time()))
        short_path, deployment = normalised(plain_path)
        return Request(
            method=method,
            path=short_path,
            headers=headers,
            body=fields,
            controls=self.controls.with_headers(headers),
            now_s=int(time.time()),
            new_id=self._new_id,
            uploads=uploads,
            query=query,
            deployment=deployment,
        )

    def _outcome(self, request: Request) -> Answer:
        controls = request.controls
        if controls.fails(request.headers):
            return _error(
                controls.status or 500, request.headers, "failed on request", controls.retry_after_s
            )
        found = routed(request, self._store)
        if found is None:
            return _error(404, request.headers, f"nothing here: {request.method} {request.path}")
        return found

    def _new_id(self, prefix: str) -> str:
        return f"{prefix}{self._tag}{next(self._ids):08x}"

    def _bill(self, answer: Answer) -> None:
        with self._lock:
            for model, amount in answer.generated.items():
                self._totals[model] = self._totals.get(model, Generated()).plus(amount)


def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
    """Answer one request as a fresh provider would: the same bytes in, the same answer (but for ids) out."""
    return FakeProvider().answer(method, path, headers, body)


def _error(status: int, headers: Mapping[str, str], text: str, retry_after_s: float | None = None) -> Answer:
    kind = _KINDS.get(status, "api_error" if status >= 500 else "invalid_request_error")
    reply: dict[str, Any]
    if "anthropic-version" in headers:
        reply = {"type": "error", "error": {"type": kind, "message": text}, "request_id": None}
    else:
        reply = {"error": {"message": text, "type": kind, "param": None, "code": None}}
    answer = json_answer(reply, status=status)
    if retry_after_s is None:
        return answer
    return replace(answer, headers={**answer.headers, "retry-after": f"{retry_after_s:g}"})
