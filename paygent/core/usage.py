"""What one provider call used, normalised to one value for every provider."""

from __future__ import annotations

from typing import NamedTuple


class Usage(NamedTuple):
    """
    Units of one call, in the words of the OpenTelemetry GenAI conventions.

    ``input_tokens`` **includes** cache reads, cache writes and audio; ``output_tokens`` **includes**
    reasoning and audio. All the other token fields are *parts of* these two and never added to them. OpenAI
    reports cached tokens inside its prompt tokens, Anthropic outside of its input tokens: the SDK edge adds
    them up.

    ``cache_write_input_tokens`` counts five-minute and one-hour writes together;
    ``cache_write_1h_input_tokens`` is the part of it with the longer life. ``web_search_requests`` are
    searches the provider bills apart from tokens. ``seconds``, ``characters`` and ``images`` are the units
    of surfaces whose answer carries no tokens. ``service_tier`` is the tier *served*, as the provider
    names it; ``batch`` says that batch rates apply.

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
