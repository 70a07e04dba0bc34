"""
What one call costs: rates, and the one function that turns usage into money.

Money is an integer throughout. Rates are atto-dollars (``ausd``, 10**-18 US dollars) per unit, fine enough
for every published price; a cost is nano-dollars (``nusd``, 10**-9 US dollars), rounded up once per call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from paygent.core.models import ModelCostRate
from paygent.core.plan import NUSD_PER_USD
from paygent.core.usage import Usage

AUSD_PER_USD = 10**18
AUSD_PER_NUSD = 10**9
BATCH = "batch"

# OpenAI and Anthropic both list web search at 10 dollars per 1 000 searches.
# Sources: OpenAI, "Pricing", built-in tools; Anthropic, "Web search tool", usage and pricing.
WEB_SEARCH_AUSD = AUSD_PER_USD // 100

_NO_LIMIT_TOKENS = 2**62
_NO_INPUT_PARTS = (0, 0, 0, 0, 0)
# What follows the tokens where a call used nothing else, in each tier that is the ordinary price by its name.
_NOTHING_ELSE = frozenset(Usage(service_tier=tier)[8:] for tier in (None, "default", "standard", "auto"))

# Each kind of token, and the direction whose rate it falls back to.
_KINDS = (
    ("input_ausd", "input_ausd"),
    ("output_ausd", "output_ausd"),
    ("cache_read_ausd", "input_ausd"),
    ("cache_write_ausd", "input_ausd"),
    ("cache_write_1h_ausd", "input_ausd"),
    ("input_audio_ausd", "input_ausd"),
    ("output_audio_ausd", "output_ausd"),
    ("input_image_ausd", "input_ausd"),
    ("output_image_ausd", "output_ausd"),
)
TOKEN_FIELDS = tuple(kind for kind, _ in _KINDS)
UNIT_FIELDS = ("call_ausd", "second_ausd", "character_ausd", "image_ausd")

# The units that a rate which is only estimated may price.
_ESTIMABLE = {
    "second_ausd": "seconds",
    "character_ausd": "characters",
    "image_ausd": "images",
    "output_image_ausd": "output_image_tokens",
}


class UnpricedTokensError(ValueError):
    """
    A call used a kind of unit that has no rate, and no other rate that could stand in for it.

    ``kind`` is the field of :class:`Usage`, ``count`` how much of it was used.
    """

    def __init__(self, kind: str, count: float) -> None:
        super().__init__(f"no rate for {kind} ({count:g} used)")
        self.kind = kind
        self.count = count

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by value, as the message alone would not rebuild it."""
        return type(self), (self.kind, self.count)


@dataclass(frozen=True, slots=True)
class Rates:
    """
    Prices of one model, in atto-dollars per token, search, call, second, character or image.

    ``None`` is *unknown*, 0 is *free*. ``tiers`` are the rates of the whole call where its input is above so
    many tokens, in ascending order. ``variants`` are the rates of a service tier as the provider names it
    (``"flex"``, ``"priority"``), of ``"batch"``, or of a kind of image (see ``usage.image_variant``).
    ``regions`` are the rates of a call kept to a region, with variants of their own. ``estimated`` names the
    rates that no price list gives: the provider bills another unit, and the rate is our estimate.
    """

    input_ausd: int | None = None
    output_ausd: int | None = None
    cache_read_ausd: int | None = None
    cache_write_ausd: int | None = None
    cache_write_1h_ausd: int | None = None
    input_audio_ausd: int | None = None
    output_audio_ausd: int | None = None
    input_image_ausd: int | None = None
    output_image_ausd: int | None = None
    web_search_ausd: int | None = None
    web_search_preview_ausd: int | None = None
    call_ausd: int | None = None
    second_ausd: int | None = None
    character_ausd: int | None = None
    image_ausd: int | None = None
    tiers: tuple[tuple[int, Rates], ...] = ()
    variants: tuple[tuple[str, Rates], ...] = ()
    regions: tuple[tuple[str, Rates], ...] = ()
    estimated: tuple[str, ...] = ()
    # Up to this many input tokens a plain call is input x rate + output x rate; -1: never.
    plain_to_tokens: int = field(init=False, repr=False, compare=False, default=-1)

    def __post_init__(self) -> None:
        """Work out once when the short way of :func:`cost_nusd` is right."""
        if self.input_ausd is not None and self.output_ausd is not None and not self.call_ausd:
            plain_to = self.tiers[0][0] if self.tiers else _NO_LIMIT_TOKENS
            object.__setattr__(self, "plain_to_tokens", plain_to)

    def in_force(self, usage: Usage) -> Rates:
        """Return the rates that apply to *usage*: of its region, its batch or service tier, its length."""
        chosen = self if usage.inference_geo is None else _named(self.regions, usage.inference_geo, self)
        wanted = BATCH if usage.batch else usage.service_tier
        if wanted is not None:
            chosen = _named(chosen.variants, wanted, chosen)
        for above_tokens, rates in chosen.tiers:
            if usage.input_tokens > above_tokens:
                chosen = rates
        return chosen

    def are_estimated_for(self, usage: Usage) -> bool:
        """Return whether *usage* has a unit whose rate is only an estimate; tokens of text never are."""
        if not self.estimated or usage[8:] in _NOTHING_ELSE:
            return False
        return any(getattr(usage, _ESTIMABLE[rate]) > 0 for rate in self.estimated)


def _named(among: Iterable[tuple[str, Rates]], wanted: str, otherwise: Rates) -> Rates:
    return next((rates for name, rates in among if name == wanted), otherwise)


def cost_nusd(usage: Usage, rates: Rates) -> int:
    """
    Price one call, rounded up once to whole nano-dollars.

    Args:
        usage: Units of one call, none of them negative. ``input_tokens`` includes cached, audio and image
            tokens, ``output_tokens`` includes reasoning, which costs what output costs.
        rates: Prices of the model. A kind of token without a rate costs the rate of its direction.

    Returns:
        Cost in nano-dollars (1 USD = 10**9), zero or more.

    Raises:
        UnpricedTokensError: *usage* has a unit without a rate, and nothing else covers it.
    """
    return priced(usage, rates)[0]


def priced(usage: Usage, rates: Rates) -> tuple[int, bool]:
    """Return what :func:`cost_nusd` does, and whether a rate in it is only an estimate."""
    input_tokens = usage[0]
    # By position, because this line is on the path of every call: a slice costs less than one field access
    # for each part. 2..6 are parts of input and output, 7 is reasoning, 8 and on is what few calls have.
    if input_tokens <= rates.plain_to_tokens and usage[2:7] == _NO_INPUT_PARTS and usage[8:] in _NOTHING_ELSE:
        whole = input_tokens * rates.input_ausd + usage[1] * rates.output_ausd  # type: ignore[operator]  # known where plain_to_tokens is not -1
        return -(-whole // AUSD_PER_NUSD), False
    return _detailed_nusd(usage, rates.in_force(usage)), rates.are_estimated_for(usage)


def _detailed_nusd(usage: Usage, rates: Rates) -> int:
    whole = _input_ausd(usage, rates) + _output_ausd(usage, rates) + _units_ausd(usage, rates)
    if usage.seconds <= 0:
        return _ceil_div(whole, AUSD_PER_NUSD)
    rate = _unit_rate("seconds", usage.seconds, rates.second_ausd, rates)
    seconds, per = Decimal(str(usage.seconds)).as_integer_ratio()
    return _ceil_div(whole * per + rate * seconds, AUSD_PER_NUSD * per)


def _input_ausd(usage: Usage, rates: Rates) -> int:
    read, written = usage.cache_read_input_tokens, usage.cache_write_input_tokens
    written_1h, audio = usage.cache_write_1h_input_tokens, usage.input_audio_tokens
    fresh = usage.input_tokens - read - written - audio
    # Cached tokens may be those of images: what is left is all that can be fresh ones.
    images = max(0, min(usage.input_image_tokens, fresh))
    plain, write = rates.input_ausd, rates.cache_write_ausd
    return (
        _charge("input_tokens", fresh - images, plain)
        + _charge("cache_read_input_tokens", read, rates.cache_read_ausd, plain)
        + _charge("cache_write_input_tokens", written - written_1h, write, plain)
        + _charge("cache_write_1h_input_tokens", written_1h, rates.cache_write_1h_ausd, write, plain)
        + _charge("input_audio_tokens", audio, rates.input_audio_ausd, plain)
        + _charge("input_image_tokens", images, rates.input_image_ausd, plain)
    )


def _output_ausd(usage: Usage, rates: Rates) -> int:
    audio, images, plain = usage.output_audio_tokens, usage.output_image_tokens, rates.output_ausd
    return (
        _charge("output_tokens", usage.output_tokens - audio - images, plain)
        + _charge("output_audio_tokens", audio, rates.output_audio_ausd, plain)
        + _charge("output_image_tokens", images, rates.output_image_ausd, plain)
    )


def _units_ausd(usage: Usage, rates: Rates) -> int:
    total, search = rates.call_ausd or 0, rates.web_search_ausd
    preview = min(usage.web_search_preview_requests, usage.web_search_requests)
    preview_ausd = search if rates.web_search_preview_ausd is None else rates.web_search_preview_ausd
    for kind, count, rate in (
        ("web_search_requests", usage.web_search_requests - preview, search),
        ("web_search_preview_requests", preview, preview_ausd),
        ("characters", usage.characters, rates.character_ausd),
        ("images", usage.images, rates.image_ausd),
    ):
        if count > 0:
            total += count * _unit_rate(kind, count, rate, rates)
    return total


def _charge(kind: str, count: int, *rates_ausd: int | None) -> int:
    """Price *count* tokens at the first known rate; below 0, where parts pass their total, it is nothing."""
    if count <= 0:
        return 0
    for rate in rates_ausd:
        if rate is not None:
            return count * rate
    raise UnpricedTokensError(kind, count)


def _unit_rate(kind: str, count: float, rate_ausd: int | None, rates: Rates) -> int:
    """Return the rate of one unit; 0 where a price per call covers it."""
    if rate_ausd is not None:
        return rate_ausd
    if rates.call_ausd is None:
        raise UnpricedTokensError(kind, count)
    return 0


def rates_from_plan(rate: ModelCostRate, catalogue: Rates | None) -> Rates:
    """
    Turn a plan's dollars per 1 000 tokens into rates.

    What the plan leaves out follows the catalogue. Kinds of token, context tiers, service tiers and batches
    keep the catalogue's ratio to its ordinary rate, exact and rounded up to the atto-dollar; units other than
    tokens keep its price, unless the plan names a price for any of them. Without a *catalogue* entry cached
    and audio tokens cost the full rate of their direction, and batches half, as at OpenAI and Anthropic.
    """
    known = catalogue or Rates(web_search_ausd=WEB_SEARCH_AUSD)
    own = Rates(**_plan_tokens(rate, known), **_plan_units(rate, known))
    variants = [(name, _like(own, rate, known, other)) for name, other in known.variants]
    if not any(name == BATCH for name, _ in variants):
        variants.append((BATCH, half_price(own)))
    tiers = tuple((above, _like(own, rate, known, other)) for above, other in known.tiers)
    regions = tuple((name, _like(own, rate, known, other)) for name, other in known.regions)
    estimated = _still_estimated(rate, known)
    return replace(own, tiers=tiers, variants=tuple(variants), regions=regions, estimated=estimated)


def half_price(rates: Rates) -> Rates:
    """
    Return *rates* with every token at half its price, context tiers included.

    Sources: OpenAI, "Batch API" (50 % discount); Anthropic, "Batch processing" (50 % of standard prices).
    """
    return times(rates, 1, 2)


def times(rates: Rates, numerator: int, denominator: int = 1) -> Rates:
    """Return *rates* with every price of a token multiplied, rounded up, and without variants."""
    tokens: dict[str, Any] = {
        kind: None if (rate := getattr(rates, kind)) is None else _ceil_div(rate * numerator, denominator)
        for kind in TOKEN_FIELDS
    }
    tiers = tuple((above, times(tier, numerator, denominator)) for above, tier in rates.tiers)
    return replace(rates, tiers=tiers, variants=(), regions=(), **tokens)


def _plan_tokens(rate: ModelCostRate, known: Rates) -> dict[str, Any]:
    own: dict[str, int] = {}
    for kind, direction in _KINDS:
        usd: float | None = getattr(rate, kind.removesuffix("_ausd"))
        if usd is not None:
            own[kind] = ausd(usd, per=1000)
        else:
            own[kind] = _scaled(own[direction], getattr(known, kind), getattr(known, direction))
    if known.cache_write_1h_ausd is None and rate.cache_write_1h is None:
        # A longer life never costs less.
        own["cache_write_1h_ausd"] = max(own["cache_write_ausd"], own["cache_write_1h_ausd"])
    return own


def _plan_units(rate: ModelCostRate, known: Rates) -> dict[str, Any]:
    named = _unit_prices(rate)
    if all(usd is None for usd in named):
        units = {unit: getattr(known, unit) for unit in UNIT_FIELDS}
    else:
        units = {
            unit: None if usd is None else ausd(usd, per)
            for unit, usd, per in zip(UNIT_FIELDS, named, (1, 1, 1000, 1), strict=True)
        }
    searches = ("web_search_ausd", "web_search_preview_ausd")
    return {**units, **{search: getattr(known, search) for search in searches}}


def _unit_prices(rate: ModelCostRate) -> tuple[float | None, ...]:
    """Return the plan's prices of units, in the order of ``UNIT_FIELDS``."""
    return rate.per_call, rate.per_second, rate.per_1k_chars, rate.per_image


def _still_estimated(rate: ModelCostRate, known: Rates) -> tuple[str, ...]:
    """Return which of the catalogue's estimates remain: a price in the plan is no estimate."""
    named = UNIT_FIELDS if any(usd is not None for usd in _unit_prices(rate)) else ()
    if rate.output_image is not None:
        named = (*named, "output_image_ausd")
    return tuple(kind for kind in known.estimated if kind not in named)


def _like(own: Rates, rate: ModelCostRate, known: Rates, other: Rates) -> Rates:
    """Return *own* changed by as much as *other* differs from *known*."""
    tokens: dict[str, Any] = {}
    for kind, direction in _KINDS:
        pair = getattr(other, kind), getattr(known, kind)
        if None in pair:
            pair = getattr(other, direction), getattr(known, direction)
        tokens[kind] = _scaled(getattr(own, kind), *pair)
    tiers = tuple((above, _like(own, rate, known, tier)) for above, tier in other.tiers)
    variants = tuple((name, _like(own, rate, known, variant)) for name, variant in other.variants)
    return Rates(**tokens, **_plan_units(rate, other), tiers=tiers, variants=variants)


def _scaled(own_ausd: int, numerator: int | None, denominator: int | None) -> int:
    """Multiply by a ratio, rounded up; an unknown ratio, or one to a free rate, is 1."""
    if numerator is None or not denominator:
        return own_ausd
    return _ceil_div(own_ausd * numerator, denominator)


def tool_cost_nusd(tools: Iterable[str], tool_costs: Mapping[str, float], default_tool_cost: float) -> int:
    """
    Price the tools of one call by the plan's dollars per use, rounded up once.

    A tool that is not listed costs *default_tool_cost* where *tool_costs* lists any, else nothing.
    """
    if not tool_costs:
        return 0
    total = sum((Decimal(str(tool_costs.get(tool, default_tool_cost))) for tool in tools), Decimal(0))
    numerator, denominator = total.as_integer_ratio()
    return _ceil_div(numerator * NUSD_PER_USD, denominator)


def ausd(usd: float | str | Decimal, per: int = 1) -> int:
    """
    Return *usd* for *per* units as atto-dollars per unit, rounded up.

    Raises:
        ValueError: *usd* is not a finite number.
    """
    numerator, denominator = _ratio(usd)
    return _ceil_div(numerator * AUSD_PER_USD, denominator * per)


def usd_to_nusd(amount: float | str | Decimal) -> int:
    """
    Return *amount* dollars, as written in decimal, as the nearest whole nano-dollar (halves to even).

    Raises:
        ValueError: *amount* is not a finite number.
    """
    numerator, denominator = _ratio(amount)
    whole, rest = divmod(numerator * NUSD_PER_USD, denominator)
    up = 2 * rest > denominator or (2 * rest == denominator and whole % 2 == 1)
    return whole + up


def _ratio(amount: float | str | Decimal) -> tuple[int, int]:
    try:
        return Decimal(str(amount)).as_integer_ratio()
    except (ArithmeticError, ValueError) as error:  # not a number at all, infinite, NaN
        raise ValueError(f"not an amount of money: {amount!r}") from error


def _ceil_div(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)
