"""Paygent, sentry-sdk and OpenTelemetry's openai instrumentation together, in every order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("coexistence.py")


ORDERS = list(permutations(("paygent", "sentry", "otel")))


@pytest.fixture(scope="module")
def tried():
    """Return what each order has seen."""
    result = subprocess.run(
        [sys.executable, str(SCRIPT)],
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[2])},
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(params=ORDERS, ids="-".join)
def order(request):
    return request.param


@pytest.fixture
def seen(tried, order):
    """Return what each of the three saw of five calls of ann and a refused one of ben."""
    return tried[" ".join(order)]


@pytest.fixture
def without(tried, order):
    """Return what the other two see in the same order without Paygent."""
    return tried[" ".join(name for name in order if name != "paygent")]


def test_each_call_is_charged_once(seen):
    """Five calls are five events with the tokens that the server billed."""
    requests, sent, made = seen["truth"]
    assert (requests, len(seen["events"])) == (5, 5)
    assert {user for user, _, _ in seen["events"]} == {"ann"}
    assert [sum(row[1] for row in seen["events"]), sum(row[2] for row in seen["events"])] == [sent, made]


def test_sentrys_spans_are_intact(seen, without):
    """Sentry has what it has without us: five usages, or three where OpenTelemetry hides the streams."""
    assert seen["sentry"] == without["sentry"]
    assert len(seen["sentry"]) >= 3


def test_opentelemetrys_spans_are_intact(seen, without):
    """OpenTelemetry has one span per call, each with its usage, as it has without us."""
    assert seen["otel"] == without["otel"]
    assert len(seen["otel"]) == 5


def test_the_refusal_comes_through_both(seen):
    """A spent user meets our own exception, whoever wrapped the call."""
    assert seen["refused"] == "total_spend"
