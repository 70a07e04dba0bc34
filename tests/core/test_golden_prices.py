"""
Real usage blocks of the providers, priced to what the provider's public price list says.

Each case of ``tests/golden/*.json`` holds an answer in the provider's own shape, the usage it means, and the
cost with its arithmetic. Prices are those of one day, so that a later change of price breaks nothing here.
"""

from __future__ import annotations

import json
from datetime import date
from decimal import ROUND_CEILING, Decimal
from pathlib import Path

import pytest

from paygent.catalogue import lookup
from paygent.core.pricing import cost_nusd
from paygent.core.usage import Usage, image_variant
from paygent.instrumentation.usage import anthropic_usage, openai_usage

GOLDEN = Path(__file__).parent.parent / "golden"
DAY = date(2026, 11, 1)
READERS = {"openai": openai_usage, "anthropic": anthropic_usage}

CASES = [
    pytest.param(case, id=f"{path.stem}: {case['name']}")
    for path in sorted(GOLDEN.glob("*.json"))
    for case in json.loads(path.read_text(encoding="utf-8"))
]


def expected_usage(case):
    """The usage that the case's answer means."""
    return Usage(**case["usage"])


def priced_usage(case, usage):
    """What only the request knows: that it was part of a batch, or the kind of image it asked for."""
    if case.get("batch"):
        return usage._replace(batch=True)
    if "image" in case:
        assert usage.service_tier is None
        return usage._replace(service_tier=image_variant(**case["image"]))
    return usage


def nusd(usd):
    """Dollars as nano-dollars, rounded up as every cost is."""
    return int((Decimal(usd) * 10**9).to_integral_value(ROUND_CEILING))


def test_the_table_is_there():
    """At least twenty-five real usage blocks are in the table."""
    assert len(CASES) >= 25


@pytest.mark.parametrize("case", CASES)
def test_the_arithmetic_of_the_case_adds_up(case):
    """The expected cost is the sum of its stated terms."""
    total = sum(Decimal(str(term["count"])) * Decimal(term["usd_per_million"]) for term in case["terms"])

    assert total / 10**6 == Decimal(case["cost_usd"])


@pytest.mark.parametrize("case", [case for case in CASES if case.values[0]["raw"] is not None])
def test_usage_is_read_from_the_answer(case):
    """The provider's answer is read as the usage it means."""
    assert READERS[case["reader"]](case["raw"]) == expected_usage(case)


@pytest.mark.parametrize("case", CASES)
def test_the_answer_is_priced_to_the_nano_dollar(case):
    """From the provider's answer to the cost on its price list, exactly."""
    raw = case["raw"]
    usage = expected_usage(case) if raw is None else READERS[case["reader"]](raw)
    rates = lookup(case["model"], case["provider"], on=DAY)

    assert rates is not None
    assert cost_nusd(priced_usage(case, usage), rates) == nusd(case["cost_usd"])


@pytest.mark.parametrize("case", CASES)
def test_only_what_the_price_list_does_not_say_is_estimated(case):
    """A case is an estimate if it says so in its name, and no other is."""
    rates = lookup(case["model"], case["provider"], on=DAY)

    assert rates is not None
    assert rates.are_estimated_for(priced_usage(case, expected_usage(case))) is ("estimate" in case["name"])
