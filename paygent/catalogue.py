"""
The bundled price catalogue: public list prices of known models, without network.

The data is that of ``genai-prices``, loaded at the first look-up and not before, with the gaps filled from
:mod:`paygent.catalogue_extra`. Its rates are read and kept as integers; pricing a call is then
:func:`paygent.core.pricing.cost_nusd` alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import date, datetime, timezone
from decimal import Decimal
from functools import lru_cache
from typing import Any

from paygent._forking import no_fork
from paygent.catalogue_extra import (
    CEILINGS_AUSD,
    CLAUDE_CACHE_READ,
    CLAUDE_CACHE_WRITE,
    CLAUDE_CACHE_WRITE_1H,
    CLAUDE_FAST,
    CLAUDE_FAST_AT_FIRST,
    CLAUDE_FIRST_FAST_MODELS,
    CLAUDE_REGION,
    CLAUDE_REGION_FACTOR,
    EXTRA,
    GPT_IMAGE_TOKENS,
    IMAGE_TOOL_CALLERS,
    IMAGE_TOOL_OUTPUT_AUSD,
    SEARCH_PREVIEW_AUSD,
    SEARCH_PREVIEW_MODELS,
    TOKEN_CEILING_AUSD,
)
from paygent.core.names import candidates
from paygent.core.pricing import (
    BATCH,
    TOKEN_FIELDS,
    UNIT_FIELDS,
    WEB_SEARCH_AUSD,
    Rates,
    ausd,
    half_price,
    times,
)
from paygent.core.usage import image_variant

__all__ = ("LOOKUPS_MAX", "MODEL_LENGTH_MAX", "image_variant", "lookup")

logger = logging.getLogger("paygent")
_logged: list[str] = []  # what has been warned of; not empty: be silent

LOOKUPS_MAX = 1024
MODEL_LENGTH_MAX = 512

# Where to look for a model of one SDK client, in this order; Azure, Bedrock and Vertex also sell the models
# of others at their makers' prices.
_SELLERS = {
    "openai": ("openai",),
    "anthropic": ("anthropic",),
    "azure": ("azure", "openai"),
    "azure_ai": ("azure", "openai"),
    "aws": ("aws", "anthropic"),
    "bedrock": ("aws", "anthropic"),
    "google": ("google", "anthropic"),
    "vertex": ("google", "anthropic"),
    "vertex_ai": ("google", "anthropic"),
    "gemini": ("google",),
}
# Makers that price their own models: a name of theirs behind a compatible API is looked up here. Models with
# open weights are priced by whoever hosts them, so hosts are asked only by name.
_MAKERS = ("openai", "anthropic", "google", "mistral", "deepseek", "x-ai", "cohere", "moonshotai")

# Field of Rates, units per price, and the catalogue's names for it, the first that is set.
_PRICE_KEYS = (
    ("input_ausd", 10**6, ("input_mtok", "input_text_mtok")),
    ("output_ausd", 10**6, ("output_mtok", "output_text_mtok")),
    ("cache_read_ausd", 10**6, ("cache_read_mtok", "cache_text_read_mtok")),
    ("cache_write_ausd", 10**6, ("cache_write_mtok", "cache_write_5m_mtok")),
    ("cache_write_1h_ausd", 10**6, ("cache_write_1h_mtok",)),
    ("input_audio_ausd", 10**6, ("input_audio_mtok",)),
    ("output_audio_ausd", 10**6, ("output_audio_mtok",)),
    ("input_image_ausd", 10**6, ("input_image_mtok",)),
    ("output_image_ausd", 10**6, ("output_image_mtok",)),
    ("web_search_ausd", 10**3, ("web_searches_kcount",)),
    ("call_ausd", 10**3, ("requests_kcount",)),
    ("second_ausd", 3600, ("input_audio_hours", "audio_hours")),
    ("character_ausd", 10**6, ("input_mchars",)),
)
# Calls of other makers' picture models come through the chat API, whose usage block does not tell the tokens
# of pictures from those of text: all of them cost the dearer of the two.
_PICTURE_KEYS = (("input_ausd", "input_image_mtok"), ("output_ausd", "output_image_mtok"))
_VARIANT_CONTEXTS = ("processing", "service_tier", "speed")


def lookup(model: str, provider: str | None = None, on: date | None = None) -> Rates | None:
    """
    Return the list prices of *model*, ``None`` if the catalogue does not know it.

    Args:
        model: Name as a provider or a router spells it.
        provider: Who is asked: ``openai``, ``anthropic``, ``azure``, ``bedrock``, ``vertex`` or any provider
            of the catalogue, such as ``openrouter``. ``None``: whoever makes the model.
        on: Day whose prices apply; today (UTC) if left out.

    Never raises and never goes to the network. Answers are kept, at most ``LOOKUPS_MAX``; the first look-up
    loads the catalogue.
    """
    if not isinstance(model, str) or len(model) > MODEL_LENGTH_MAX:
        return None
    return _lookup(model, provider, on or datetime.now(timezone.utc).date())


@lru_cache(maxsize=LOOKUPS_MAX)
def _lookup(model: str, provider: str | None, on: date) -> Rates | None:
    names = candidates(model)
    if not names:
        return None
    rates = _completed(_bundled(names, _providers(names, provider), on), _extra(names), names[-1])
    return rates if rates is not None and _is_sane(model, rates) else None


def _providers(names: Iterable[str], provider: str | None) -> tuple[str, ...]:
    """Return where to look, in order: who was asked, who the name itself says, then the makers."""
    named: list[str] = []
    if provider is not None:
        asked = provider.strip().lower()
        named += _SELLERS.get(asked, (asked,))
    for name in names:
        head = name.partition("/")[0]
        if head != name:
            named += _SELLERS.get(head, (head,))
    return tuple(dict.fromkeys((*named, *_MAKERS)))


def _bundled(names: Iterable[str], providers: tuple[str, ...], on: date) -> Rates | None:
    """Ask ``genai-prices``; the name as given at every provider first, plainer names after it."""
    try:
        for name in names:
            for provider in providers:
                found = _ask(name, provider, on)
                if found is not None:
                    return found
    except Exception as error:  # noqa: BLE001  # a third party's data must not stop a call
        _log_once(error)
    return None


def _ask(name: str, seller: str, on: date) -> Rates | None:
    # Not genai_prices.calc_price, which remembers every name it was ever asked for: names come from outside.
    with no_fork:
        from genai_prices.data_snapshot import find_provider_by_id, get_snapshot

        sellers = get_snapshot().providers
    provider = find_provider_by_id(sellers, seller)
    model = provider.find_model(name, all_providers=sellers) if provider is not None else None
    return None if model is None else _model_rates(model, on, may_be_free=name.endswith(":free"))


def _model_rates(model: Any, on: date, *, may_be_free: bool) -> Rates | None:
    noon = datetime(on.year, on.month, on.day, 12, tzinfo=timezone.utc)
    pictures = "image" in model.id and not _tells_pictures(model.id)
    base = _rates(model.get_prices(noon), pictures=pictures)
    if not may_be_free and not any(getattr(base, kind) for kind in (*TOKEN_FIELDS, *UNIT_FIELDS)):
        return None  # nothing but zeros: unknown, whatever the catalogue says
    variants = {
        value: _rates(model.get_prices(noon, {context: value}), pictures=pictures)
        for context, value in _variant_names(model)
    }
    changed = ((value, rates) for value, rates in variants.items() if rates != base)
    return replace(base, variants=tuple(changed))


def _tells_pictures(name: str) -> bool:
    """Return whether it is a model of OpenAI's images API, whose usage block tells pictures from text."""
    return name.startswith(("gpt-image", "chatgpt-image"))


def _variant_names(model: Any) -> Iterator[tuple[str, str]]:
    """Yield the context and the value of every price variant that hangs on one of them alone."""
    for variant in model.price_variants or ():
        if len(variant.when) == 1:
            ((context, name),) = variant.when.items()
            if context in _VARIANT_CONTEXTS:
                yield context, name


def _rates(price: Any, *, pictures: bool) -> Rates:
    starts = {tier.start for value in vars(price).values() for tier in getattr(value, "tiers", ())}
    tiers = tuple((start, _rates_above(price, start, pictures=pictures)) for start in sorted(starts))
    return replace(_rates_above(price, 0, pictures=pictures), tiers=tiers)


def _rates_above(price: Any, start: int, *, pictures: bool) -> Rates:
    """Return the rates of a call whose input is just above *start* tokens; 0 stands for the base rates."""
    amounts: dict[str, Any] = {}
    for name, per, keys in _PRICE_KEYS:
        usd = next((value for key in keys if (value := _amount(price, key, start)) is not None), None)
        amounts[name] = None if usd is None else ausd(usd, per)
    for name, key in _PICTURE_KEYS if pictures else ():
        usd = _amount(price, key, start)
        if usd is not None:
            amounts[name] = max(amounts[name] or 0, ausd(usd, per=10**6))
    return Rates(**amounts)


def _amount(price: Any, key: str, start: int) -> Decimal | None:
    value: Any = getattr(price, key, None)
    if not hasattr(value, "tiers"):
        return value  # type: ignore[no-any-return]  # a Decimal or None
    amount: Decimal = value.base
    for tier in value.tiers:
        if start and tier.start <= start:
            amount = tier.price
    return amount


def _extra(names: Iterable[str]) -> Rates | None:
    return next((EXTRA[name] for name in names if name in EXTRA), None)


def _completed(bundled: Rates | None, extra: Rates | None, name: str) -> Rates | None:
    """Fill what the bundled catalogue leaves out, from our own table and from the providers' rules."""
    if bundled is None and extra is None:
        return None
    ours = extra or Rates()
    rates = _throughout(bundled or Rates(), lambda rates: _filled(rates, ours))
    if "claude" in name:
        rates = _throughout(rates, _with_claude_cache)
    rates = _throughout(rates, _with_search)
    rates = _throughout(rates, lambda rates: _with_openai_tools(rates, name))
    if _tells_pictures(name):
        rates = _with_picture(rates)
    rates = _with_rules(rates, ours, name)
    if "claude" in name:
        dearer = _throughout(rates, lambda rates: times(rates, *CLAUDE_REGION_FACTOR))
        rates = replace(rates, regions=((CLAUDE_REGION, dearer),))
    return rates


def _with_rules(rates: Rates, ours: Rates, name: str) -> Rates:
    """Add the variants of our own table, and those that follow from the providers' rules."""
    rules = [(BATCH, half_price(rates))]
    if "claude" in name:
        rules.append(("fast", times(rates, _fast_factor(name))))
    known = {variant for variant, _ in rates.variants}
    added = tuple(variant for variant in (*ours.variants, *rules) if variant[0] not in known)
    return replace(rates, variants=rates.variants + added)


def _fast_factor(name: str) -> int:
    return CLAUDE_FAST_AT_FIRST if name.startswith(CLAUDE_FIRST_FAST_MODELS) else CLAUDE_FAST


def _throughout(rates: Rates, change: Callable[[Rates], Rates]) -> Rates:
    """Apply *change* to *rates* and to all the tiers and variants in them."""
    tiers = tuple((above, _throughout(tier, change)) for above, tier in rates.tiers)
    variants = tuple((name, _throughout(variant, change)) for name, variant in rates.variants)
    return replace(change(rates), tiers=tiers, variants=variants)


def _filled(rates: Rates, ours: Rates) -> Rates:
    names = (*TOKEN_FIELDS, *UNIT_FIELDS)
    missing: dict[str, Any] = {name: getattr(ours, name) for name in names if getattr(rates, name) is None}
    return replace(rates, **missing, estimated=tuple(name for name in ours.estimated if name in missing))


def _with_openai_tools(rates: Rates, name: str) -> Rates:
    """Price what OpenAI's hosted tools bill apart from the model that calls them."""
    if name.startswith(SEARCH_PREVIEW_MODELS):
        rates = replace(rates, web_search_preview_ausd=SEARCH_PREVIEW_AUSD)
    draws = name.startswith(IMAGE_TOOL_CALLERS) and rates.output_ausd is not None
    if draws and rates.output_image_ausd is None:
        estimated = (*rates.estimated, "output_image_ausd")
        rates = replace(rates, output_image_ausd=IMAGE_TOOL_OUTPUT_AUSD, estimated=estimated)
    return rates


def _with_picture(rates: Rates) -> Rates:
    """Price an image whose tokens are not known by the most that it usually takes."""
    per_token = rates.output_ausd if rates.output_image_ausd is None else rates.output_image_ausd
    if rates.image_ausd is not None or per_token is None:
        return rates
    return replace(rates, image_ausd=GPT_IMAGE_TOKENS * per_token, estimated=(*rates.estimated, "image_ausd"))


def _with_search(rates: Rates) -> Rates:
    missing = rates.web_search_ausd is None and rates.input_ausd is not None
    return replace(rates, web_search_ausd=WEB_SEARCH_AUSD) if missing else rates


def _with_claude_cache(rates: Rates) -> Rates:
    plain = rates.input_ausd
    if plain is None:
        return rates
    factors = {
        "cache_read_ausd": CLAUDE_CACHE_READ,
        "cache_write_ausd": CLAUDE_CACHE_WRITE,
        "cache_write_1h_ausd": CLAUDE_CACHE_WRITE_1H,
    }
    missing: dict[str, Any] = {
        name: int(plain * factor) for name, factor in factors.items() if getattr(rates, name) is None
    }
    return replace(rates, **missing)


def _is_sane(model: str, rates: Rates) -> bool:
    """Refuse what can only be an error of units: such a price would spend a plan in one call."""
    ceilings = {**dict.fromkeys(TOKEN_FIELDS, TOKEN_CEILING_AUSD), **CEILINGS_AUSD}
    for name, ceiling in ceilings.items():
        rate: int | None = getattr(rates, name)
        if rate is not None and not 0 <= rate <= ceiling:
            logger.warning("the catalogue's price of %r is not used: its %s is %s", model, name, rate)
            return False
    return all(_is_sane(model, other) for _, other in (*rates.tiers, *rates.variants, *rates.regions))


def _log_once(error: Exception) -> None:
    if not _logged:
        _logged.append(type(error).__name__)
        logger.warning(
            "the price catalogue cannot be read; models without a rate in their plan are unpriced",
            exc_info=error,
        )
