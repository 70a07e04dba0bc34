"""The sandbox's provider: it answers both SDKs inside the process, as the test has scripted."""

from __future__ import annotations

import importlib
import importlib.util
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from paygent.testing.llm_server import Answer, Controls, FakeProvider
from paygent.testing.transport import _answering, _kinds

_FLAVOURS = ("httpx", "httpx2")
_TRANSPORTS = (
    ("HTTPTransport", "handle_request", "sync"),
    ("AsyncHTTPTransport", "handle_async_request", "async"),
)


class ScriptedProvider(FakeProvider):
    """
    A provider whose next answers the test writes; what is not scripted gets a friendly text.

    ``requests`` holds what the SDKs sent, ``generated`` what was billed for each model.
    """

    def __init__(self) -> None:
        self._script: deque[Controls] = deque()
        self._present = threading.local()
        super().__init__()

    def reply(
        self,
        text: str | None = None,
        *,
        tokens: tuple[int, int] | None = None,
        delay_s: float = 0.0,
        times: int = 1,
    ) -> None:
        """
        Answer the next call, or the next *times* calls, like this; a stream too.

        Args:
            text: What the model says.
            tokens: Input and output tokens to bill, instead of the counted ones.
            delay_s: Wait before the first byte.
        """
        self._script.extend([Controls(latency_s=delay_s, usage=tokens, text=text)] * times)

    def fail(self, status: int = 500, *, delay_s: float = 0.0, times: int = 1) -> None:
        """Answer the next call, or *times* calls, with this HTTP status; the SDK does not retry it."""
        self._script.extend([Controls(latency_s=delay_s, status=status)] * times)

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer one request; only what may be billed uses up the script."""
        self._present.controls = self._next() if method == "POST" else None
        answer = super().answer(method, path, headers, body)
        if answer.status < 400:
            return answer
        return replace(answer, headers={**answer.headers, "x-should-retry": "false"})

    def reset(self) -> None:
        """Forget the script, the log and the totals."""
        self._script.clear()
        super().reset()

    @property
    def controls(self) -> Controls:
        """How the request at hand is answered."""
        return getattr(self._present, "controls", None) or self._otherwise

    @controls.setter
    def controls(self, controls: Controls) -> None:
        self._otherwise = controls

    def _next(self) -> Controls | None:
        try:
            return self._script.popleft()
        except IndexError:
            return None


@contextmanager
def answering(provider: FakeProvider) -> Iterator[None]:
    """
    Let *provider* answer what the OpenAI and Anthropic SDKs send, by whichever client, also an older one.

    Everything else goes where it always went.
    """
    with ExitStack() as stack:
        for name in _FLAVOURS:
            if importlib.util.find_spec(name) is not None:
                flavour = importlib.import_module(name)
                for owner, method, kind in _TRANSPORTS:
                    stub = _kinds(flavour)[kind](flavour, _answering(provider.answer))
                    own = _method(getattr(flavour, owner), method, stub)
                    stack.enter_context(patch.object(getattr(flavour, owner), method, own))
        yield


def _method(owner: type, name: str, stub: Any) -> Any:
    """Return the method of a transport that asks *stub* for what an SDK sends; awaitable if both are."""
    original, answer = getattr(owner, name), getattr(stub, name)

    def handle(self: Any, request: Any) -> Any:
        return answer(request) if _is_sdks(request.headers) else original(self, request)

    return handle


def _is_sdks(headers: Mapping[str, str]) -> bool:
    """Whether an SDK of the two sent the request; other SDKs are made by the same generator."""
    agent = headers.get("user-agent", "").lower()
    return "x-stainless-lang" in headers and ("openai" in agent or "anthropic" in agent)
