"""What one call costs."""

from __future__ import annotations

import pickle
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from paygent.core.models import ModelCostRate
from paygent.core.plan import NUSD_PER_USD
from paygent.core.pricing import (
    AUSD_PER_NUSD,
    AUSD_PER_USD,
    WEB_SEARCH_AUSD,
    Rates,
    UnpricedTokensError,
    ausd,
    cost_nusd,
    half_price,
    rates_from_plan,
    times,
    tool_cost_nusd,
    usd_to_nusd,
)
from paygent.core.usage import Usage

PER_MILLION = AUSD_PER_USD // 10**6
RATES = Rates(
    input_ausd=3 * PER_MILLION,
    output_ausd=15 * PER_MILLION,
    cache_read_ausd=3 * PER_MILLION // 10,
    cache_write_ausd=375 * PER_MILLION // 100,
    cache_write_1h_ausd=6 * PER_MILLION,
    input_audio_ausd=40 * PER_MILLION,
    output_audio_ausd=80 * PER_MILLION,
    input_image_ausd=5 * PER_MILLION,
    output_image_ausd=32 * PER_MILLION,
    web_search_ausd=AUSD_PER_USD // 100,
    web_search_preview_ausd=AUSD_PER_USD // 40,
    second_ausd=AUSD_PER_USD // 10**4,
    character_ausd=15 * PER_MILLION,
    image_ausd=AUSD_PER_USD // 25,
)
counts = st.integers(0, 10**6)
rates_ausd = st.integers(0, AUSD_PER_USD // 1000)
prices = st.floats(0, 1, allow_nan=False)


@st.composite
def usages(draw):
    """Usage whose parts fit into their totals."""
    read, written, audio_in, audio_out, seen, drawn = (draw(counts) for _ in range(6))
    searches = draw(st.integers(0, 50))
    return Usage(
        input_tokens=read + written + audio_in + seen + draw(counts),
        output_tokens=audio_out + drawn + draw(counts),
        cache_read_input_tokens=read,
        cache_write_input_tokens=written,
        cache_write_1h_input_tokens=draw(st.integers(0, written)),
        input_audio_tokens=audio_in,
        output_audio_tokens=audio_out,
        reasoning_output_tokens=draw(counts),
        web_search_requests=searches,
        seconds=draw(st.integers(0, 10**6)) / 1000,
        characters=draw(counts),
        images=draw(st.integers(0, 10)),
        input_image_tokens=seen,
        output_image_tokens=drawn,
        web_search_preview_requests=draw(st.integers(0, searches)),
    )


def every_rate(rate):
    """Rates at which any one token, search, second, character or image costs the same."""
    names = [name for name in Rates.__dataclass_fields__ if name.endswith("_ausd") and name != "call_ausd"]
    return Rates(**dict.fromkeys(names, rate))


# --- cost ---------------------------------------------------------------------------------------------------


def test_a_plain_call_costs_its_tokens_at_their_rates():
    """1 000 tokens in at 3 dollars a million and 100 out at 15 are 0.0045 dollars."""
    assert cost_nusd(Usage(1000, 100), RATES) == 4_500_000


def test_parts_of_the_input_are_priced_once_at_their_own_rates():
    """Cached and audio tokens are taken out of the input before the rest is priced."""
    usage = Usage(1000, 0, 200, 300, 100, 50)

    millionths = 450 * 3 + 200 * Fraction(3, 10) + 200 * Fraction(15, 4) + 100 * 6 + 50 * 40
    assert cost_nusd(usage, RATES) == millionths * 1000


def test_images_are_priced_once_at_their_own_rates():
    """Tokens of images are taken out of the input and the output before the rest is priced."""
    usage = Usage(1000, 500, input_image_tokens=700, output_image_tokens=400)

    assert cost_nusd(usage, RATES) == (300 * 3 + 700 * 5 + 100 * 15 + 400 * 32) * 1000


def test_cached_images_are_charged_as_cached_only():
    """Where cached tokens and those of images overlap, what is left of the input is all that is fresh."""
    usage = Usage(1000, 0, 900, input_image_tokens=800)

    assert cost_nusd(usage, RATES) == 900 * 300 + 100 * 5000


def test_searches_by_the_preview_have_a_price_of_their_own():
    """Of three searches one went through the preview: the other two cost the ordinary price."""
    usage = Usage(web_search_requests=3, web_search_preview_requests=1)

    assert cost_nusd(usage, RATES) == 2 * 10_000_000 + 25_000_000


def test_the_preview_without_a_price_costs_what_a_search_costs():
    """The price of the preview differs for some models only."""
    usage = Usage(web_search_requests=2, web_search_preview_requests=2)

    assert cost_nusd(usage, replace(RATES, web_search_preview_ausd=None)) == 20_000_000


def test_reasoning_is_not_charged_twice():
    """Reasoning tokens are part of the output already."""
    assert cost_nusd(Usage(10, 100, reasoning_output_tokens=90), RATES) == cost_nusd(Usage(10, 100), RATES)


def test_parts_above_their_total_do_not_make_the_rest_negative():
    """A server that reports more cached than input tokens is charged the cached ones, and no rebate."""
    assert cost_nusd(Usage(100, 0, 500), RATES) == 500 * 300


def test_seconds_count_as_they_are_written():
    """8.47 seconds are 8.47 seconds, not the binary fraction next to it."""
    assert cost_nusd(Usage(seconds=8.47), RATES) == 847_000


def test_units_add_up_with_tokens():
    """Searches, characters and images belong to the same call."""
    usage = Usage(1000, 100, web_search_requests=2, characters=1000, images=3)

    assert cost_nusd(usage, RATES) == 4_500_000 + 20_000_000 + 15_000_000 + 120_000_000


def test_the_price_of_a_call_is_charged_once():
    """A price per call comes on top of the tokens, whatever they are."""
    rates = replace(RATES, call_ausd=AUSD_PER_USD // 40)

    assert cost_nusd(Usage(1000, 100), rates) == 4_500_000 + 25_000_000


def test_rounding_is_up():
    """A call that cost anything is never free."""
    assert cost_nusd(Usage(1, 0), Rates(input_ausd=1, output_ausd=0)) == 1


@given(usages(), rates_ausd)
def test_rounding_happens_once(usage, rate):
    """The cost is the exact sum of all the units, rounded up one single time."""
    tokens = usage.input_tokens + usage.output_tokens
    units = (
        tokens + usage.web_search_requests + usage.characters + usage.images + Fraction(str(usage.seconds))
    )

    assert cost_nusd(usage, every_rate(rate)) == ceil(units * rate / AUSD_PER_NUSD)


@given(counts, counts, rates_ausd, rates_ausd)
def test_the_short_way_is_the_long_way(input_tokens, output_tokens, input_ausd, output_ausd):
    """Plain calls take a shorter way through the code, to the same cost."""
    rates = Rates(input_ausd=input_ausd, output_ausd=output_ausd)
    short = Usage(input_tokens, output_tokens)
    long = short._replace(service_tier="unheard-of")

    assert cost_nusd(short, rates) == cost_nusd(long, rates)


@given(usages(), st.sampled_from(["output_tokens", "web_search_requests", "characters", "images", "seconds"]))
def test_cost_rises_with_every_unit(usage, field):
    """One more unit of anything never costs less, and at a rate of its own it costs more."""
    more = usage._replace(**{field: getattr(usage, field) + 1})

    assert cost_nusd(more, RATES) > cost_nusd(usage, RATES)


@given(usages(), counts)
def test_cost_rises_with_every_part(usage, extra):
    """More input of any kind never costs less, with the input growing by as much."""
    for part in (
        "cache_read_input_tokens",
        "cache_write_input_tokens",
        "input_audio_tokens",
        "input_image_tokens",
    ):
        grown = {"input_tokens": usage.input_tokens + extra, part: getattr(usage, part) + extra}
        assert cost_nusd(usage._replace(**grown), RATES) >= cost_nusd(usage, RATES)


@given(usages())
def test_a_cheaper_part_never_costs_more_than_the_whole_at_full_rate(usage):
    """Cache reads are a discount: without the detail the same tokens cost at least as much."""
    cached = Usage(usage.input_tokens, 0, usage.cache_read_input_tokens)

    assert cost_nusd(cached, RATES) <= cost_nusd(Usage(usage.input_tokens), RATES)


# --- unknown, free, and a number ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "usage",
    [
        Usage(output_tokens=1),
        Usage(1, 0, 1),
        Usage(output_tokens=1, output_audio_tokens=1),
        Usage(web_search_requests=1),
        Usage(web_search_requests=1, web_search_preview_requests=1),
        Usage(output_tokens=1, output_image_tokens=1),
        Usage(1, input_image_tokens=1),
        Usage(seconds=0.5),
        Usage(characters=1),
        Usage(images=1),
    ],
)
def test_a_unit_without_any_rate_is_an_error_never_zero(usage):
    """What cannot be priced says so."""
    with pytest.raises(UnpricedTokensError):
        cost_nusd(usage, Rates())


def test_the_error_names_what_has_no_rate():
    """The error carries the field of the usage and the count, and survives pickling."""
    with pytest.raises(UnpricedTokensError, match="images") as caught:
        cost_nusd(Usage(images=3), Rates())

    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.kind, again.count) == ("images", 3)


def test_no_units_cost_nothing_without_rates():
    """Nothing used costs nothing, priced or not."""
    assert cost_nusd(Usage(), Rates()) == 0


@pytest.mark.parametrize(
    "kind",
    [
        "cache_read",
        "cache_write",
        "cache_write_1h",
        "input_audio",
        "output_audio",
        "input_image",
        "output_image",
    ],
)
@given(count=st.integers(1, 10**6), rate=st.none() | rates_ausd)
def test_absent_and_zero_and_a_rate_are_three_things(kind, count, rate):
    """A kind without a rate costs the full rate of its direction, a rate of 0 is free, any other applies."""
    full = RATES.output_ausd if kind.startswith("output") else RATES.input_ausd
    names = {f"{kind}_ausd": rate}
    parts = {"cache_write_1h": {"cache_write_input_tokens": count}}.get(kind, {})
    side = "output_tokens" if kind.startswith("output") else "input_tokens"
    part = f"{kind}_input_tokens" if kind.startswith("cache") else f"{kind}_tokens"
    rates = Rates(**{"input_ausd": RATES.input_ausd, "output_ausd": RATES.output_ausd, **names})

    cost = cost_nusd(Usage(**{side: count, part: count, **parts}), rates)

    assert cost == ceil(Fraction(count * (full if rate is None else rate), AUSD_PER_NUSD))


def test_a_longer_cache_life_without_a_rate_costs_the_shorter_ones():
    """One-hour writes fall back to the rate of cache writes before that of input."""
    rates = Rates(input_ausd=PER_MILLION, cache_write_ausd=2 * PER_MILLION)

    assert cost_nusd(Usage(10, 0, 0, 10, 10), rates) == 10 * 2000


def test_a_price_per_call_covers_units_without_a_rate():
    """A plan that prices the call itself has priced its images."""
    assert cost_nusd(Usage(images=4), Rates(call_ausd=AUSD_PER_USD)) == 10**9


def test_a_price_per_call_of_zero_is_a_price():
    """A plan may give its images away, by saying so."""
    assert cost_nusd(Usage(images=4), Rates(call_ausd=0)) == 0


def test_a_price_per_call_does_not_cover_tokens():
    """Tokens without a rate stay unpriced: a fee says nothing about them."""
    with pytest.raises(UnpricedTokensError):
        cost_nusd(Usage(10, 10), Rates(call_ausd=AUSD_PER_USD))


# --- tiers and variants -------------------------------------------------------------------------------------

LONG = Rates(input_ausd=6 * PER_MILLION, output_ausd=30 * PER_MILLION)
LONGER = Rates(input_ausd=9 * PER_MILLION, output_ausd=45 * PER_MILLION)
TIERED = Rates(input_ausd=3 * PER_MILLION, output_ausd=15 * PER_MILLION, tiers=((200, LONG), (400, LONGER)))


@pytest.mark.parametrize("input_tokens, factor", [(200, 1), (201, 2), (400, 2), (401, 3)])
def test_above_a_threshold_the_whole_call_takes_its_rate(input_tokens, factor):
    """A context tier begins above its threshold and prices every token of the call, output too."""
    assert cost_nusd(Usage(input_tokens, 10), TIERED) == factor * (input_tokens * 3000 + 10 * 15000)


@pytest.mark.parametrize("tier", [None, "default", "standard", "auto", "unheard-of"])
def test_other_tiers_are_the_ordinary_price(tier):
    """The ordinary tier by any name, and a tier without a price of its own, take the ordinary rates."""
    rates = replace(RATES, variants=(("flex", LONG),))

    assert cost_nusd(Usage(1000, 100, service_tier=tier), rates) == 4_500_000


def test_the_tier_served_takes_its_own_rates():
    """A variant replaces the rates, its own context tiers included."""
    rates = replace(RATES, variants=(("flex", TIERED),))

    assert cost_nusd(Usage(300, 0, service_tier="flex"), rates) == 300 * 6000


def test_a_batch_takes_batch_rates_whatever_the_tier():
    """What ran in a batch is billed as batch."""
    rates = replace(RATES, variants=(("default", LONGER), ("batch", half_price(RATES))))

    assert cost_nusd(Usage(1000, 100, service_tier="default", batch=True), rates) == 2_250_000


@pytest.mark.parametrize(
    "more, factor",
    [({}, 10), ({"service_tier": "flex"}, 20), ({"batch": True}, 5), ({"service_tier": "unheard-of"}, 10)],
)
def test_a_region_has_rates_and_variants_of_its_own(more, factor):
    """A call kept to a region costs that region's price, in its batches and tiers too."""
    far = Rates(10, 0, variants=(("flex", Rates(20, 0)), ("batch", Rates(5, 0))))
    rates = replace(RATES, variants=(("flex", LONG),), regions=(("us", far),))

    usage = Usage(10**9, 0, inference_geo="us", **more)
    assert cost_nusd(usage, rates) == factor
    assert cost_nusd(usage._replace(inference_geo=None), rates) > 10**9


def test_a_region_without_rates_of_its_own_costs_the_ordinary_price():
    """Where the list knows no other price for a region, there is none."""
    assert cost_nusd(Usage(1000, 100, inference_geo="eu"), RATES) == 4_500_000


def test_half_price_halves_tokens_only():
    """Batches halve every kind of token, context tiers included, but no search."""
    half = half_price(replace(RATES, tiers=TIERED.tiers))

    assert (half.cache_read_ausd, half.tiers[0][1].input_ausd) == (3 * PER_MILLION // 20, 3 * PER_MILLION)
    assert (half.web_search_ausd, half.image_ausd) == (RATES.web_search_ausd, RATES.image_ausd)


@given(usages())
def test_half_price_is_half(usage):
    """A call of tokens alone costs half in a batch, to the nano-dollar that rounding adds."""
    usage = usage._replace(web_search_requests=0, seconds=0.0, characters=0, images=0)
    full, half = cost_nusd(usage, RATES), cost_nusd(usage, half_price(RATES))

    assert 0 <= 2 * half - full <= 1


# --- rates of a plan ----------------------------------------------------------------------------------------


def test_a_plan_is_in_dollars_per_thousand_tokens():
    """0.0025 and 0.01 per 1 000 tokens are 2.50 and 10 dollars per million."""
    rates = rates_from_plan(ModelCostRate(input=0.0025, output=0.01), None)

    assert (rates.input_ausd, rates.output_ausd) == (5 * PER_MILLION // 2, 10 * PER_MILLION)


def test_a_kind_left_out_takes_the_catalogue_s_ratio():
    """At twice the list price of input, cached tokens cost twice theirs, and audio likewise."""
    rates = rates_from_plan(ModelCostRate(input=0.006, output=0.045), RATES)

    assert rates.cache_read_ausd == 2 * RATES.cache_read_ausd
    assert rates.cache_write_1h_ausd == 2 * RATES.cache_write_1h_ausd
    assert rates.input_audio_ausd == 2 * RATES.input_audio_ausd
    assert rates.output_audio_ausd == 3 * RATES.output_audio_ausd


def test_a_ratio_is_exact_and_rounded_up():
    """A third of the rate is not a float: 10 / 3 atto-dollars are 4."""
    known = Rates(input_ausd=3, output_ausd=1, cache_read_ausd=1)

    assert rates_from_plan(ModelCostRate(input=1e-14, output=0), known).cache_read_ausd == 4


def test_a_ratio_to_a_free_rate_is_none():
    """Where the catalogue's input is free, cached tokens cost the plan's full rate."""
    known = Rates(input_ausd=0, output_ausd=0, cache_read_ausd=0)
    rates = rates_from_plan(ModelCostRate(input=0.003, output=0), known)

    assert rates.cache_read_ausd == rates.input_ausd


def test_without_a_catalogue_cached_tokens_cost_the_full_rate():
    """What is unknown is never less than what is known, and never zero."""
    rates = rates_from_plan(ModelCostRate(input=0.003, output=0.015), None)

    assert rates.cache_read_ausd == rates.cache_write_ausd == rates.input_audio_ausd == rates.input_ausd
    assert rates.output_audio_ausd == rates.output_ausd


def test_without_a_catalogue_a_longer_cache_life_is_not_cheaper():
    """Where the plan names the rate of cache writes, one-hour writes cost no less."""
    rates = rates_from_plan(ModelCostRate(input=0.003, output=0.015, cache_write=0.004), None)

    assert rates.cache_write_1h_ausd == rates.cache_write_ausd


@given(prices, prices, st.none() | prices)
def test_absent_and_zero_differ_in_a_plan(input_usd, output_usd, cache_read):
    """A cache rate of 0 is free, one left out follows the catalogue, any other applies as it is."""
    rates = rates_from_plan(ModelCostRate(input=input_usd, output=output_usd, cache_read=cache_read), RATES)

    if cache_read is None:
        assert rates.cache_read_ausd == ceil(Fraction(rates.input_ausd, 10))
    else:
        assert rates.cache_read_ausd == ausd(cache_read, per=1000)


def test_a_plan_follows_the_catalogue_s_tiers_and_variants():
    """A plan at twice the list price is at twice the list price above every threshold and in every tier."""
    known = replace(RATES, tiers=((200, LONG),), variants=(("flex", TIERED),))

    rates = rates_from_plan(ModelCostRate(input=0.006, output=0.030), known)

    assert cost_nusd(Usage(201, 10), rates) == 2 * cost_nusd(Usage(201, 10), known)
    flex = Usage(401, 10, service_tier="flex")
    assert cost_nusd(flex, rates) == 2 * cost_nusd(flex, known)


def test_a_kind_that_a_tier_leaves_out_rises_with_its_direction():
    """A long call's cache reads rise as its input does, where the catalogue does not say more."""
    rates = rates_from_plan(ModelCostRate(input=0.003, output=0.015), replace(RATES, tiers=((200, LONG),)))

    assert rates.tiers[0][1].cache_read_ausd == 2 * RATES.cache_read_ausd


def test_batches_cost_half_in_a_plan_without_a_catalogue():
    """OpenAI and Anthropic sell every model at half its price in a batch."""
    rates = rates_from_plan(ModelCostRate(input=0.003, output=0.015), None)

    assert cost_nusd(Usage(1000, 100, batch=True), rates) == 2_250_000


def test_a_plan_s_prices_of_other_units_apply():
    """Prices per call, per second and per 1 000 characters are taken as they are."""
    rate = ModelCostRate(input=0, output=0, per_call=0.5, per_second=0.25, per_1k_chars=0.015)

    rates = rates_from_plan(rate, RATES)

    assert (rates.call_ausd, rates.second_ausd) == (AUSD_PER_USD // 2, AUSD_PER_USD // 4)
    assert rates.character_ausd == 15 * PER_MILLION


def test_a_plan_s_price_per_call_replaces_the_catalogue_s_price_per_image():
    """Who prices the call does not pay the list price of its images as well, in any variant."""
    known = Rates(image_ausd=AUSD_PER_USD, variants=(("hd:1024x1024", Rates(image_ausd=2 * AUSD_PER_USD)),))
    rates = rates_from_plan(ModelCostRate(input=0, output=0, per_call=0.5), known)

    assert cost_nusd(Usage(images=1), rates) == cost_nusd(Usage(images=1, service_tier="hd:1024x1024"), rates)
    assert cost_nusd(Usage(images=1), rates) == 500_000_000


def test_units_that_a_plan_does_not_price_keep_the_catalogue_s_price():
    """A plan for a picture model that names tokens only takes the list price per image and its variants."""
    known = Rates(image_ausd=AUSD_PER_USD, variants=(("hd:1024x1024", Rates(image_ausd=2 * AUSD_PER_USD)),))
    rates = rates_from_plan(ModelCostRate(input=0, output=0), known)

    assert cost_nusd(Usage(images=1, service_tier="hd:1024x1024"), rates) == 2 * 10**9


def test_a_plan_s_price_per_image_applies_to_every_kind_of_image():
    """A plan that prices the image prices the large one in high quality too."""
    known = Rates(image_ausd=AUSD_PER_USD, variants=(("hd:1024x1024", Rates(image_ausd=2 * AUSD_PER_USD)),))
    rates = rates_from_plan(ModelCostRate(input=0, output=0, per_image=0.05), known)

    assert cost_nusd(Usage(images=3), rates) == 150_000_000
    assert cost_nusd(Usage(images=3, service_tier="hd:1024x1024"), rates) == 150_000_000


def test_a_plan_may_price_the_tokens_of_images():
    """A rate in the plan applies as it is; without one, the catalogue's ratio."""
    rates = rates_from_plan(ModelCostRate(input=0.006, output=0.015, output_image=0.1), RATES)

    assert rates.output_image_ausd == 100 * PER_MILLION
    assert rates.input_image_ausd == 2 * RATES.input_image_ausd


def test_a_plan_follows_the_catalogue_s_regions_and_their_variants():
    """A plan at twice the list price is at twice the list price in every region, in batches too."""
    far = replace(times(RATES, 11, 10), variants=(("batch", times(RATES, 55, 100)),))
    known = replace(RATES, regions=(("us", far),))
    rates = rates_from_plan(ModelCostRate(input=0.006, output=0.030), known)

    for usage in (Usage(1000, 100, inference_geo="us"), Usage(1000, 100, batch=True, inference_geo="us")):
        assert cost_nusd(usage, rates) == 2 * cost_nusd(usage, known)


# --- estimates ----------------------------------------------------------------------------------------------

GUESSED = replace(RATES, estimated=("character_ausd", "output_image_ausd"))


@pytest.mark.parametrize(
    "usage, is_estimate",
    [
        (Usage(1000, 100), False),
        (Usage(images=1, seconds=1.0), False),
        (Usage(characters=1), True),
        (Usage(output_tokens=10, output_image_tokens=1), True),
    ],
)
def test_a_rate_of_our_own_makes_an_estimate_of_what_it_prices(usage, is_estimate):
    """Only a call that used the unit is an estimate, and none is where every rate is on a price list."""
    assert GUESSED.are_estimated_for(usage) is is_estimate
    assert RATES.are_estimated_for(usage) is False


@pytest.mark.parametrize(
    "named, remaining",
    [
        ({}, ("character_ausd", "output_image_ausd")),
        ({"per_1k_chars": 0.01}, ("output_image_ausd",)),
        ({"per_call": 0.01}, ("output_image_ausd",)),
        ({"output_image": 0.04}, ("character_ausd",)),
    ],
)
def test_a_price_in_the_plan_is_no_estimate(named, remaining):
    """What the plan prices is exact; what it leaves to the catalogue stays an estimate."""
    rates = rates_from_plan(ModelCostRate(input=0.003, output=0.015, **named), GUESSED)

    assert rates.estimated == remaining


def test_searches_have_a_price_without_a_catalogue():
    """A search that the provider bills is never free, also where the model is unknown."""
    assert rates_from_plan(ModelCostRate(input=0, output=0), None).web_search_ausd == WEB_SEARCH_AUSD


@given(usages(), prices, prices)
def test_a_free_plan_is_free(usage, input_usd, output_usd):
    """Rates of 0 price every token at 0; only other rates cost."""
    assume(input_usd > 0.001)
    usage = usage._replace(web_search_requests=0, seconds=0.0, characters=0, images=0)
    free = rates_from_plan(ModelCostRate(input=0, output=0), RATES)
    paid = rates_from_plan(ModelCostRate(input=input_usd, output=output_usd), RATES)

    assert cost_nusd(usage, free) == 0
    assert (cost_nusd(usage, paid) > 0) >= (usage.input_tokens > 0)


# --- tools --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tools, costs, expected",
    [
        ((), {"search": 0.05}, 0),
        (("search",), {}, 0),
        (("search",), {"search": 0.05}, 50_000_000),
        (("search", "search"), {"search": 0.05}, 100_000_000),
        (("search", "other"), {"search": 0.05}, 70_000_000),
        (("search", "other"), {"search": 0.0}, 20_000_000),
    ],
)
def test_tools_cost_what_the_plan_lists(tools, costs, expected):
    """Each use costs the listed price, an unlisted tool the default, and nothing where nothing is listed."""
    assert tool_cost_nusd(tools, costs, 0.02) == expected


def test_tools_are_rounded_up_once():
    """Three uses at a third of a nano-dollar are one nano-dollar, not three."""
    assert tool_cost_nusd(["a"] * 3, {"a": 3e-10}, 0) == 1


# --- money --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "amount, nusd",
    [
        (0.1, 100_000_000),
        (49, 49_000_000_000),
        ("0.0025", 2_500_000),
        (Decimal("1e-9"), 1),
        (0.1 + 0.2, 300_000_000),
        ("0.0000000005", 0),
        ("0.0000000015", 2),
        (-0.1, -100_000_000),
        (10**30, 10**39),
    ],
)
def test_dollars_become_whole_nano_dollars(amount, nusd):
    """Amounts are read as they are written in decimal and rounded to the nearest nano-dollar."""
    assert usd_to_nusd(amount) == nusd


@pytest.mark.parametrize("amount", [float("nan"), float("inf"), float("-inf"), "ten", "", None])
def test_what_is_no_amount_is_refused(amount):
    """NaN, infinity and text are no money."""
    with pytest.raises(ValueError, match="not an amount of money"):
        usd_to_nusd(amount)


@given(st.integers(0, 10**15))
def test_nano_dollars_survive_the_way_to_dollars_and_back(amount_nusd):
    """Up to a million dollars, the public float says the exact nano-dollar."""
    assert usd_to_nusd(amount_nusd / NUSD_PER_USD) == amount_nusd
