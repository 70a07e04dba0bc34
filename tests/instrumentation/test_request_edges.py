"""What a request says before it is sent: values of every shape, caps, uploads, and names that are none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from paygent.core.usage import Usage
from paygent.instrumentation.operations import operation_of
from paygent.instrumentation.requests import PICTURE_BYTES, Ask, ask_of, text_bytes


@pytest.mark.parametrize(
    "value,size",
    [
        ("né", 3),
        (None, 0),
        (5, 1),
        (1.5, 1),
        (True, 1),
        ({"a": "né", "b": None, "c": ["x", None, 7]}, 5),
        ({"type": "x", "a": "né"}, 4),
        ([{"role": "user", "content": "né", "name": None}], 7),
        ([{"type": "text", "text": "né"}], 7),
        (("a", ["bc"]), 3),
        (SimpleNamespace(text="four"), 4),
        ({"type": "document", "source": {"type": "text", "data": "four"}}, 4),
        ({"type": "document", "source": {"type": "content", "content": ["four", "x"]}}, 5),
        ({"type": "document", "source": {"type": "base64", "data": "A" * 200}}, PICTURE_BYTES + 10),
        ({"type": "file", "file": {"file_data": "A" * 200}}, PICTURE_BYTES + 10),
        ({"type": "input_file", "file_data": "A" * 200}, PICTURE_BYTES + 10),
        ({"type": "input_audio", "input_audio": {"data": "A" * 1000}}, PICTURE_BYTES + 10),
        ({"type": "image_url", "image_url": {"url": "A" * 1000}}, PICTURE_BYTES),
    ],
)
def test_text_counts_whatever_holds_it(value: Any, size: int) -> None:
    """Text counts by its bytes in any nesting, a number or a truth as one, and nothing as nothing."""
    assert text_bytes(value) == size


@pytest.mark.parametrize(
    "path,body,ask",
    [
        ("/chat/completions", {"model": "", "messages": "four"}, Ask(None, 4, None)),
        ("/chat/completions", {"model": 5, "messages": "four"}, Ask(None, 4, None)),
        ("/chat/completions", {"model": "m", "messages": [{"content": "four"}]}, Ask("m", 4, None)),
        ("/chat/completions", {"model": "m", "response_format": {"schema": "four"}}, Ask("m", 4, None)),
        ("/chat/completions", {"model": "m", "metadata": {"a": "four"}, "stop": ["x"]}, Ask("m", 0, None)),
        ("/chat/completions", {"model": "m", "max_tokens": 0}, Ask("m", 0, 0)),
        ("/chat/completions", {"model": "m", "max_tokens": 9, "n": 1}, Ask("m", 0, 9)),
        ("/chat/completions", {"model": "m", "max_tokens": 9, "n": 3}, Ask("m", 0, 27)),
        ("/chat/completions", {"model": "m", "max_tokens": 9, "n": 0}, Ask("m", 0, 9)),
        ("/embeddings", {"model": "m", "input": [1, 2, 3]}, Ask("m", 12, 0)),
        ("/embeddings", {"model": "m", "input": [7]}, Ask("m", 4, 0)),
        ("/embeddings", {"model": "m", "input": [[1, 2, 3]]}, Ask("m", 12, 0)),
        ("/embeddings", {"model": "m", "input": ["four"]}, Ask("m", 4, 0)),
        ("/embeddings", {"model": "m", "input": []}, Ask("m", 0, 0)),
        ("/threads/t/runs", {"model": "m", "max_completion_tokens": -1}, Ask("m", 0, None)),
        ("/threads/t/runs", {"model": "m", "max_completion_tokens": 0}, Ask("m", 0, 0)),
    ],
)
def test_a_body_says_its_model_its_size_and_its_cap(path: str, body: dict[str, Any], ask: Ask) -> None:
    """A name that is none and a cap that means nothing are none, and token ids are a token each."""
    assert ask_of(operation_of("openai", path), body) == ask


@pytest.mark.parametrize("wanted,images", [(None, 1), (3, 3), (0, 1)])
def test_a_picture_to_edit_costs_input(wanted: Any, images: int) -> None:
    """Each picture that is uploaded counts as much as one in a prompt; those that are made are units."""
    options = SimpleNamespace(files=[("image", b"1"), ("image", b"2")])
    read = ask_of(
        operation_of("openai", "/images/edits"), {"model": "m", "prompt": "four", "n": wanted}, options
    )
    assert read.input_bytes == 4 + 2 * PICTURE_BYTES
    assert read.units == Usage(images=images, service_tier="auto:auto")
