"""Choosing the form of an answer by what its client says it reads. Source: RFC 9110, section 12.5.1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

Kind = Literal["html", "problem", "json"]


def negotiated(headers: Mapping[str, str]) -> Kind:
    """
    Choose the form of the answer: a page for a person who follows a link or sends a form, else JSON.

    Args:
        headers: The request's headers, names in lower case.
    """
    accept = headers.get("accept", "")
    destination = headers.get("sec-fetch-dest", "document")
    is_script = destination not in ("document", "iframe", "frame") or "x-requested-with" in headers
    weights = dict(_weights(accept))
    anything = max(weights.get("application/*", 0.0), weights.get("*/*", 0.0))
    as_json = weights.get("application/json", anything)
    as_problem = weights.get("application/problem+json", 0.0)
    if not is_script and weights.get("text/html", 0.0) > max(as_json, as_problem):
        return "html"
    return "problem" if as_problem > 0 and as_problem >= weights.get("application/json", 0.0) else "json"


def _weights(accept: str) -> Iterator[tuple[str, float]]:
    """The media types of an Accept header with their weights; what cannot be read is left out."""
    for part in accept.lower().split(","):
        media, *parameters = (word.strip() for word in part.split(";"))
        quality = next((word[2:] for word in parameters if word.startswith("q=")), "1")
        try:
            yield media, float(quality)
        except ValueError:
            continue
