"""
Prices that the bundled catalogue lacks, by hand, each with where the provider documents it.

They fill gaps only: where the catalogue knows a rate, the catalogue's applies.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from paygent.core.pricing import AUSD_PER_USD, Rates, ausd
from paygent.core.usage import image_variant


def _per_million(
    input: str | None = None,  # noqa: A002  # the word of the price lists
    output: str | None = None,
    *,
    cached: str | None = None,
    audio_in: str | None = None,
    audio_out: str | None = None,
) -> Rates:
    """Build rates from dollars per million tokens, as price lists print them."""
    amounts = (input, output, cached, audio_in, audio_out)
    fresh, out, read, heard, spoken = (None if usd is None else ausd(usd, per=10**6) for usd in amounts)
    return Rates(fresh, out, read, input_audio_ausd=heard, output_audio_ausd=spoken)


def _per_image(base: str, **variants: str) -> Rates:
    """Build rates per image; *variants* are named ``quality_size``, as in ``hd_1024x1792``."""
    named = ((image_variant(*name.split("_")), Rates(image_ausd=ausd(usd))) for name, usd in variants.items())
    return Rates(image_ausd=ausd(base), variants=tuple(named))


def _estimated(rates: Rates) -> Rates:
    """Mark the prices of units in *rates*: the provider bills something else, which we may not get to see."""
    kinds = ("second_ausd", "character_ausd", "image_ausd")
    return replace(rates, estimated=tuple(kind for kind in kinds if getattr(rates, kind) is not None))


def _per_minute(usd: str) -> Rates:
    return Rates(second_ausd=ausd(usd, per=60))


def _per_million_characters(usd: str) -> Rates:
    return Rates(character_ausd=ausd(usd, per=10**6))


def _per_thousand_calls(usd: str) -> Rates:
    return Rates(call_ausd=ausd(usd, per=1000))


_FREE = Rates(input_ausd=0, output_ausd=0, call_ausd=0)

EXTRA: dict[str, Rates] = {
    # OpenAI, "Pricing", image generation: DALL-E is billed per image by size and quality. Unstated, they are
    # what the API reference gives as the default: 1024x1024, standard.
    "dall-e-3": _per_image(
        "0.04",
        auto_1024x1792="0.08",
        auto_1792x1024="0.08",
        standard_1024x1792="0.08",
        standard_1792x1024="0.08",
        hd_auto="0.08",
        hd_1024x1024="0.08",
        hd_1024x1792="0.12",
        hd_1792x1024="0.12",
    ),
    "dall-e-2": _per_image(
        "0.02",
        auto_512x512="0.018",
        auto_256x256="0.016",
        standard_512x512="0.018",
        standard_256x256="0.016",
    ),
    # OpenAI, "Pricing", image generation, price per image: for answers that carry no usage block, since it
    # is the tokens that are billed. Unstated quality and size are "auto", which may be the dearest.
    "gpt-image-1": _estimated(
        _per_image(
            "0.25",
            low_1024x1024="0.011",
            low_1024x1536="0.016",
            low_1536x1024="0.016",
            medium_1024x1024="0.042",
            medium_1024x1536="0.063",
            medium_1536x1024="0.063",
            high_1024x1024="0.167",
        )
    ),
    # OpenAI, "Pricing", transcription and speech generation.
    "whisper-1": _per_minute("0.006"),
    "tts-1": _per_million_characters("15"),
    "tts-1-hd": _per_million_characters("30"),
    # OpenAI, "Pricing", transcription: estimated cost per minute, for answers billed by duration.
    "gpt-4o-transcribe": _estimated(_per_minute("0.006")),
    "gpt-4o-transcribe-diarize": _estimated(_per_minute("0.006")),
    "gpt-4o-mini-transcribe": _estimated(_per_minute("0.003")),
    # OpenAI, "Pricing", speech generation: 0.015 dollars per minute, estimated; the binary answer carries no
    # usage. One minute of speech is some 750 characters and more; counted as 750.
    "gpt-4o-mini-tts": _estimated(_per_million_characters("20")),
    # OpenAI, model pages, audio tokens.
    "gpt-4o-audio-preview": _per_million("2.5", "10", audio_in="40", audio_out="80"),
    "gpt-4o-mini-audio-preview": _per_million("0.15", "0.6", audio_in="10", audio_out="20"),
    # OpenAI, "Pricing", web search: models that search in every call are billed the search as well.
    "gpt-4o-search-preview": _per_thousand_calls("25"),
    "gpt-4o-mini-search-preview": _per_thousand_calls("25"),
    "gpt-5-search-api": _per_thousand_calls("10"),
    # OpenAI, "Pricing", fine-tuning, inference.
    "ft:gpt-4o": _per_million("3.75", "15", cached="1.875"),
    "ft:gpt-4o-mini": _per_million("0.3", "1.2", cached="0.15"),
    "ft:gpt-4.1": _per_million("3", "12", cached="0.75"),
    "ft:gpt-4.1-mini": _per_million("0.8", "3.2", cached="0.2"),
    "ft:gpt-4.1-nano": _per_million("0.2", "0.8", cached="0.05"),
    "ft:o4-mini": _per_million("4", "16", cached="1"),
    # OpenAI, "Moderation": the endpoint is free.
    "omni-moderation": _FREE,
    "omni-moderation-latest": _FREE,
    "text-moderation": _FREE,
    "text-moderation-latest": _FREE,
    "text-moderation-stable": _FREE,
}

# Anthropic, "Prompt caching", pricing: multiples of the input rate, the same for every Claude model.
CLAUDE_CACHE_READ = Decimal("0.1")
CLAUDE_CACHE_WRITE = Decimal("1.25")
CLAUDE_CACHE_WRITE_1H = Decimal(2)

# Anthropic, "Data residency", pricing: tokens of a call kept to the US cost 1.1 times theirs, cache, batches
# and fast mode included. Models older than Opus 4.6 refuse the parameter and never report this region.
CLAUDE_REGION = "us"
CLAUDE_REGION_FACTOR = (11, 10)

# OpenAI, "Pricing", built-in tools: the preview of web search is dearer with models that do not reason.
SEARCH_PREVIEW_AUSD = AUSD_PER_USD // 40
SEARCH_PREVIEW_MODELS = ("gpt-4o", "gpt-4.1", "gpt-4.5")

# OpenAI, "Image generation", cost and latency: the tokens of an image in high quality, 1024x1536. An image
# whose tokens are not known yet is taken to be one of these.
GPT_IMAGE_TOKENS = 6240
# OpenAI, "Pricing", image tokens: the dearest output of the models behind the image tool of the Responses
# API, whose tokens are reported next to those of the model that calls it, but at prices of their own.
IMAGE_TOOL_OUTPUT_AUSD = ausd("40", per=10**6)
IMAGE_TOOL_CALLERS = ("gpt-4", "gpt-5", "gpt-6", "o1", "o3", "o4")

# Anthropic, "Fast mode", pricing: a multiple of every rate of a token, cache included. It was 6 times when
# the mode was new, and has been 2 times since.
CLAUDE_FAST = 2
CLAUDE_FAST_AT_FIRST = 6
CLAUDE_FIRST_FAST_MODELS = ("claude-opus-4-6", "claude-opus-4-7")

# Above these a price is taken for an error of the catalogue (the dearest model listed costs a thousandth of a
# dollar per token; one of the errors on record was dollars per million stored as dollars per thousand).
CEILINGS_AUSD: dict[str, int] = {
    "web_search_ausd": AUSD_PER_USD,
    "call_ausd": 10 * AUSD_PER_USD,
    "second_ausd": AUSD_PER_USD,
    "character_ausd": AUSD_PER_USD // 1000,
    "image_ausd": 10 * AUSD_PER_USD,
}
TOKEN_CEILING_AUSD = AUSD_PER_USD // 1000  # one dollar per 1 000 tokens
