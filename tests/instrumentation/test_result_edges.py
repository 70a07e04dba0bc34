"""Answers of odd shapes: each one is settled, with what the request said, and under a name that is one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from paygent.core.usage import Usage
from paygent.instrumentation.operations import operation_of
from paygent.instrumentation.results import settle

CHAT = operation_of("openai", "/chat/completions")
IMAGES = operation_of("openai", "/images/generations")
USED = {"prompt_tokens": 8, "completion_tokens": 2}
UNITS = Usage(images=2, service_tier="hd:1024x1024")


class Bracket:
    """The bracket of one call, as far as an answer uses it."""

    def __init__(self) -> None:
        self.settled: list[tuple[Any, ...]] = []

    def finish(self, usage: Usage, model: Any = None, tools: Any = ()) -> None:
        self.settled.append(("reported", usage, model, tuple(tools)))

    def finish_estimated(self, partial: Usage | None, output_bytes: int, model: Any = None) -> None:
        self.settled.append(("estimated", partial, output_bytes, model))


# A response of an HTTP client of which nothing was read, and nothing can be tapped.
Unread = type("Response", (), {"__module__": "httpx", "headers": {}})


def settled(operation: Any, answer: Any, units: Usage | None = None) -> tuple[Any, ...]:
    """Return how *answer* settles its call."""
    bracket = Bracket()
    settle(bracket, operation, answer, units)  # type: ignore[arg-type]  # as far as an answer uses it
    (one,) = bracket.settled
    return one


@pytest.mark.parametrize("named,model", [("m", "m"), ("", None), (5, None), (None, None)])
def test_the_model_of_an_answer_is_a_name_or_none(named: Any, model: str | None) -> None:
    """What is no text, or an empty one, names no model."""
    assert settled(CHAT, {"usage": USED, "choices": [], "model": named}) == (
        "reported",
        Usage(8, 2),
        model,
        (),
    )


def test_an_answer_without_usage_is_estimated_by_what_it_says() -> None:
    """So is one whose usage is all zeros."""
    said = [{"message": {"content": "four"}}]
    assert settled(CHAT, {"choices": said, "model": "m"}) == ("estimated", None, 4, "m")
    none = {"prompt_tokens": 0, "completion_tokens": 0}
    assert settled(CHAT, {"usage": none, "choices": said, "model": "m"}) == ("estimated", None, 4, "m")


@pytest.mark.parametrize("answer", [{"odd": 1}, {"created": 1, "data": []}])
def test_pictures_that_an_answer_does_not_count_are_those_asked_for(answer: dict[str, Any]) -> None:
    """Where the answer says nothing of its pictures the request does."""
    assert settled(IMAGES, answer, UNITS) == ("reported", UNITS, None, ())


def test_pictures_are_of_the_kind_asked_for() -> None:
    """An answer that shows its pictures and not their kind has them priced by the request's."""
    answer = {"created": 1, "data": [{"url": "x"}]}
    assert settled(IMAGES, answer, UNITS)[1] == Usage(images=1, service_tier=UNITS.service_tier)
    told = {**answer, "quality": "low", "size": "256x256"}
    assert settled(IMAGES, told, UNITS)[1] == Usage(images=1, service_tier="low:256x256")


def test_a_response_that_cannot_be_read_is_estimated() -> None:
    """One that was not read, and that nothing can be hung on, is settled at once by what was asked for."""
    assert settled(CHAT, Unread(), UNITS) == ("estimated", UNITS, 0, None)


def test_a_response_that_says_nothing_is_estimated() -> None:
    """So is one that was read, and is no JSON."""
    response = Unread()
    response._content = response.content = b"not found"
    assert settled(CHAT, response, UNITS) == ("estimated", UNITS, 0, None)


def test_an_answer_of_a_class_of_its_own_is_read_by_its_fields() -> None:
    """Whatever its class, an answer that is neither stream nor response is a model."""
    answer = SimpleNamespace(usage=SimpleNamespace(**USED), choices=[], model="m")
    assert settled(CHAT, answer) == ("reported", Usage(8, 2), "m", ())
