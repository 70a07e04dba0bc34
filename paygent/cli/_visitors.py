"""The demo's users: each talks to the app over HTTP, as his browser would."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import cycle
from types import TracebackType
from typing import Any, NamedTuple

import httpx

QUESTIONS = (
    "How do I start a small project?",
    "What should I measure first?",
    "Can you give me an example?",
    "And what comes after that?",
)
TIMEOUT_S = 60.0


class Refused(NamedTuple):
    """An answer of the app that is no chat: its status, its headers and its JSON."""

    status: int
    reason: str
    headers: httpx.Headers
    problem: dict[str, Any]


class Visitor:
    """One signed-in user of the app, with his cookie."""

    def __init__(self, url: str, name: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=TIMEOUT_S, trust_env=False)
        self._models: Iterator[str] = iter(())
        self._questions = cycle(QUESTIONS)
        self._http.post("/api/login", json={"name": name}).raise_for_status()

    def __enter__(self) -> Visitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def chat(self, questions: int) -> Refused | None:
        """Ask that many questions, one after the other, each of another model; stops at a refusal."""
        for _ in range(questions):
            refused = self.ask()
            if refused is not None:
                return refused
        return None

    def ask(self) -> Refused | None:
        """Ask one question and read the whole streamed answer."""
        message = {"role": "user", "content": next(self._questions)}
        body = {"model": next(self._models), "messages": [message]}
        with self._http.stream("POST", "/api/chat", json=body) as answer:
            text = answer.read().decode()
            if answer.status_code != httpx.codes.OK:
                return Refused(answer.status_code, answer.reason_phrase, answer.headers, json.loads(text))
        return None

    def upgrade(self) -> str:
        """Take the plan on offer; returns its name."""
        answer = self._http.post("/api/upgrade").raise_for_status()
        return str(answer.json()["plan"])

    def choose_models(self) -> list[str]:
        """Take turns between the models that the app has on offer, and return them."""
        models: list[str] = self._http.get("/api/me").raise_for_status().json()["choices"]
        self._models = cycle(models)
        return models
