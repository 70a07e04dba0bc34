"""What one provider call used, normalised to one value for every provider."""

from __future__ import annotations

from typing import NamedTuple


class Usage(NamedTuple):
    """
    Units of one call, in the words of the OpenTelemetry GenAI conventions.

    ``input_tokens`` **includes** cache reads, cache writes, audio and images; ``output_tokens`` **includes**
    reasoning, audio and images. All the other token fields are *parts of* these two and never added to them.
    OpenAI reports cached tokens inside its prompt tokens, Anthropic outside of its input tokens: the SDK edge
    adds them up.

    ``cache_write_input_tokens`` counts five-minute and one-hour writes together;
    ``cache_write_1h_input_tokens`` is the part of it with the longer life. ``web_search_requests`` are
    searches the provider bills apart from tokens; ``web_search_preview_requests`` is the part of them that
    went through OpenAI's preview of the tool. ``seconds``, ``characters`` and ``images`` are the units
    of surfaces whose answer carries no tokens. ``service_tier`` is the tier *served*, as the provider
    names it, or the kind of image (:func:`image_variant`); ``batch`` says that batch rates apply.
    ``inference_geo`` is where the model ran, if the provider was told to keep to a region.

    Source: OpenTelemetry GenAI conventions, ``gen_ai.usage.*``.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_write_input_tokens: int = 0
    cache_write_1h_input_tokens: int = 0
    input_audio_tokens: int = 0
    output_audio_tokens: int = 0
    reasoning_output_tokens: int = 0
    web_search_requests: int = 0
    seconds: float = 0.0
    characters: int = 0
    images: int = 0
    service_tier: str | None = None
    batch: bool = False
    input_image_tokens: int = 0
    output_image_tokens: int = 0
    web_search_preview_requests: int = 0
    inference_geo: str | None = None


def is_empty(usage: Usage) -> bool:
    """
    Whether *usage* counts nothing at all: no report, whatever was answered.

    Servers that do not count send zeros. Unknown is never zero.
    """
    return not (usage.input_tokens or usage.output_tokens) and not any(
        value for value in usage if type(value) in (int, float)
    )


def has_negative(usage: Usage) -> bool:
    """Whether a unit is below zero: a report that cannot be right."""
    return any(isinstance(value, (int, float)) and value < 0 for value in usage)


def image_variant(quality: str | None, size: str | None) -> str:
    """
    Return the name that *quality* and *size* of an image have among the variants of its rates.

    It goes into ``Usage.service_tier``: image APIs without a usage block have no service tiers. What is not
    stated is ``auto``; what that means is the model's matter.
    """
    return f"{quality or 'auto'}:{size or 'auto'}"
