"""The bundled price catalogue."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest
from genai_prices.data_snapshot import DataSnapshot, get_snapshot, set_custom_snapshot
from genai_prices.types import ClauseEquals, ModelInfo, ModelPrice, Provider

from paygent import catalogue
from paygent.catalogue import image_variant, lookup
from paygent.core.pricing import AUSD_PER_USD, BATCH, Rates, UnpricedTokensError, cost_nusd, half_price
from paygent.core.usage import Usage

PER_MILLION = AUSD_PER_USD // 10**6
DAY = date(2026, 11, 1)


@pytest.fixture
def fresh():
    """A catalogue that remembers nothing, before and after."""
    forget()
    yield
    set_custom_snapshot(None)
    forget()


def forget():
    """Empty what the catalogue keeps between look-ups."""
    catalogue._lookup.cache_clear()
    catalogue._logged.clear()


def bundle(model, **prices):
    """Let the bundled data know one model, sold by OpenAI."""
    info = ModelInfo(id=model, match=ClauseEquals(equals=model), prices=ModelPrice(**prices))
    seller = Provider(id="openai", name="OpenAI", api_pattern="", models=[info])
    set_custom_snapshot(DataSnapshot(providers=[seller], from_auto_update=False))


def test_importing_it_loads_no_catalogue():
    """The data is loaded at the first look-up, not by the import."""
    code = "import sys, paygent.catalogue; sys.exit('genai_prices' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_network_is_touched():
    """A look-up in a process without sockets finds its price."""
    code = (
        "import socket\n"
        "def refuse(*args, **kwargs): raise SystemExit('network')\n"
        "import asyncio, ssl\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from paygent.catalogue import lookup\n"
        "assert lookup('gpt-4o') is not None\n"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "model, provider",
    [
        ("gpt-4o", None),
        ("gpt-4o", "openai"),
        ("gpt-4o", "azure"),
        ("gpt-4o", "unheard-of"),
        ("openai/gpt-4o", "openai"),
        ("openrouter/openai/gpt-4o", None),
        ("GPT-4o-2024-08-06", None),
    ],
)
def test_a_model_is_found_by_any_of_its_names(model, provider):
    """Router prefixes, dates and the provider asked lead to the same list price."""
    rates = lookup(model, provider, on=DAY)

    assert rates is not None
    assert (rates.input_ausd, rates.output_ausd) == (5 * PER_MILLION // 2, 10 * PER_MILLION)


@pytest.mark.parametrize(
    "model",
    ["gpt-4o-new-variant", "my-deployment", "", "x" * 10_000, "openai/" * 99 + "gpt-4o", "llama-3.1-8b"],
)
def test_an_unknown_model_is_unknown(model):
    """No price is made up for a model that the catalogue does not list, or that each host prices itself."""
    assert lookup(model, None, on=DAY) is None


def test_what_is_no_name_is_unknown():
    """A model that is no text has no price and raises nothing."""
    assert lookup(None) is None


def test_a_fine_tuned_model_never_takes_the_price_of_its_base():
    """A fine-tuned model whose price is not listed is unknown."""
    assert lookup("ft:gpt-5:acme::AbC123", "openai", on=DAY) is None


def test_a_fine_tuned_model_without_a_date_is_found():
    """The price of a fine-tuned model does not depend on the date in its name."""
    dated = lookup("ft:gpt-4o-mini-2024-07-18:acme::AbC123", "openai", on=DAY)
    undated = lookup("ft:gpt-4o-mini:acme::AbC123", "openai", on=DAY)

    assert dated is not None
    assert undated is not None
    assert dated.input_ausd == undated.input_ausd == 3 * PER_MILLION // 10


@pytest.mark.parametrize("model", ["tts-1", "whisper-1", "dall-e-3", "gpt-4o-mini-tts"])
def test_models_billed_otherwise_are_not_free_by_the_token(model):
    """Speech, pictures and audio by duration have a price of their own, and no free tokens."""
    rates = lookup(model, "openai", on=DAY)

    assert rates is not None
    assert rates.input_ausd != 0
    assert any(unit for unit in (rates.second_ausd, rates.character_ausd, rates.image_ausd))


def test_tokens_of_a_model_billed_by_the_second_are_unpriced():
    """Token counts for such a model raise rather than cost nothing."""
    rates = lookup("whisper-1", "openai", on=DAY)

    assert rates is not None
    with pytest.raises(UnpricedTokensError):
        cost_nusd(Usage(1000, 100), rates)


def test_transcription_by_tokens_has_a_price_by_the_second_too():
    """Where the answer gives only the duration, the documented price per minute applies."""
    rates = lookup("gpt-4o-transcribe", "openai", on=DAY)

    assert rates is not None
    assert (rates.input_audio_ausd, rates.second_ausd) == (6 * PER_MILLION, AUSD_PER_USD // 10**4)


@pytest.mark.parametrize(
    "quality, size, usd",
    [
        (None, None, "0.04"),
        ("standard", "1024x1792", "0.08"),
        ("hd", None, "0.08"),
        ("hd", "1792x1024", "0.12"),
    ],
)
def test_pictures_cost_by_quality_and_size(quality, size, usd):
    """DALL-E 3 costs what its price list says for the kind of picture."""
    rates = lookup("dall-e-3", "openai", on=DAY)

    assert rates is not None
    usage = Usage(images=1, service_tier=image_variant(quality, size))
    assert cost_nusd(usage, rates) == int(Decimal(usd) * 10**9)


def test_a_model_that_searches_in_every_call_is_charged_for_it():
    """The search is billed per call, on top of the tokens."""
    rates = lookup("gpt-4o-search-preview", "openai", on=DAY)

    assert rates is not None
    assert cost_nusd(Usage(1000, 100), rates) == 25_000_000 + 3_500_000


@pytest.mark.parametrize("batch", [False, True])
def test_a_search_is_never_without_a_price(fresh, batch):
    """Where the data does not price searches, the providers' list price applies, in a batch too."""
    bundle("new-model", input_mtok=Decimal(0), output_mtok=Decimal(1))
    rates = lookup("new-model", "openai", on=DAY)

    assert rates is not None
    assert cost_nusd(Usage(100, web_search_requests=1, batch=batch), rates) == 10_000_000


def test_moderation_is_free_and_known_to_be():
    """Free is a price; it is not the absence of one."""
    rates = lookup("omni-moderation-latest", "openai", on=DAY)

    assert rates is not None
    assert rates.input_ausd == 0


def test_batches_cost_half_before_the_data_says_so_and_after():
    """The rule of the provider holds on days for which the data has no batch price."""
    before = lookup("claude-haiku-4-5", "anthropic", on=date(2026, 1, 1))
    after = lookup("claude-haiku-4-5", "anthropic", on=DAY)

    assert before is not None
    assert after is not None
    usage = Usage(1000, 100, batch=True)
    assert cost_nusd(usage, before) == cost_nusd(usage, after) == 750_000


def test_the_price_of_the_day_applies():
    """The same call costs what it cost on its day, before and after a change of price."""
    early = lookup("o3", "openai", on=date(2025, 6, 1))
    late = lookup("o3", "openai", on=date(2025, 7, 1))

    assert early is not None
    assert late is not None
    assert (early.input_ausd, late.input_ausd) == (10 * PER_MILLION, 2 * PER_MILLION)


def test_claude_cache_rates_follow_the_rule_where_the_data_is_silent(fresh):
    """A tenth of the input rate to read, 1.25 times to write, twice for an hour, in every tier."""
    bundle("claude-new-model", input_mtok=Decimal(4), output_mtok=Decimal(20))

    rates = lookup("claude-new-model", "anthropic", on=DAY)

    assert rates is not None
    assert rates.cache_read_ausd == 4 * PER_MILLION // 10
    assert rates.cache_write_ausd == 5 * PER_MILLION
    assert rates.cache_write_1h_ausd == 8 * PER_MILLION
    assert dict(rates.variants)[BATCH] == replace(half_price(rates), variants=())


@pytest.mark.parametrize(
    "model,factor",
    [("claude-opus-4-6", 6), ("claude-opus-4-7", 6), ("claude-opus-4-8", 2), ("claude-opus-9", 2)],
)
def test_claude_s_fast_mode_multiplies_every_token(fresh, model, factor):
    """Fast mode is never priced as the ordinary speed, whatever the data knows of it."""
    bundle(model, input_mtok=Decimal(4), output_mtok=Decimal(20), cache_read_mtok=Decimal("0.4"))
    rates = lookup(model, "anthropic", on=DAY)
    usage = Usage(1000, 100, 500)

    assert rates is not None
    fast = usage._replace(service_tier="fast")
    assert cost_nusd(fast, rates) == factor * cost_nusd(usage, rates)


@pytest.mark.parametrize("usd", [Decimal(15000), Decimal(-1)])
def test_a_price_that_cannot_be_right_is_refused(fresh, caplog, usd):
    """A price above a dollar per 1 000 tokens, or below zero, is an error: unknown, with a warning."""
    bundle("new-model", input_mtok=usd, output_mtok=Decimal(1))

    assert lookup("new-model", "openai", on=DAY) is None
    assert "new-model" in caplog.text


def test_a_price_of_nothing_but_zeros_is_unknown(fresh):
    """An entry whose every rate is 0 or missing is a gap in the data, not a gift."""
    bundle("new-model", input_mtok=Decimal(0), output_mtok=Decimal(0))

    assert lookup("new-model", "openai", on=DAY) is None


def test_broken_data_is_logged_once_and_leaves_the_model_unknown(fresh, caplog):
    """A fault in the bundled data never reaches the caller, and does not fill the log."""
    set_custom_snapshot(DataSnapshot(providers=[None], from_auto_update=False))

    assert [lookup(model, "openai", on=DAY) for model in ("new-1", "new-2")] == [None, None]
    assert caplog.text.count("cannot be read") == 1


def test_our_own_table_works_without_the_bundled_data(monkeypatch, fresh):
    """Models of our own table keep their price when the bundled data is broken."""
    monkeypatch.setitem(sys.modules, "genai_prices.data_snapshot", None)

    assert lookup("dall-e-2", "openai", on=DAY) is not None


def test_answers_are_remembered_within_bounds(fresh):
    """The same question is answered from memory, and memory does not grow with the questions."""
    first = lookup("gpt-4o", "openai", on=DAY)
    for number in range(catalogue.LOOKUPS_MAX + 10):
        lookup(f"dall-e-2:{number}", "openai", on=DAY)

    assert catalogue._lookup.cache_info().currsize == catalogue.LOOKUPS_MAX
    assert lookup("gpt-4o", "openai", on=DAY) == first


def test_the_bundled_library_remembers_no_names(fresh):
    """Names come from outside: asking for many of them fills no memory of the library either."""
    lookup("gpt-4o", "openai", on=DAY)
    before = len(get_snapshot()._lookup_cache), len(get_snapshot()._provider_cache)
    for number in range(50):
        lookup(f"gpt-4o-mini-{number}", f"provider-{number}", on=DAY)

    assert (len(get_snapshot()._lookup_cache), len(get_snapshot()._provider_cache)) == before


def test_many_threads_get_the_same_answer(fresh):
    """The first look-ups of many threads at once all find the price."""
    found: list[Rates | None] = []
    start = threading.Barrier(8)

    def ask():
        start.wait()
        found.append(lookup("gpt-4.1", "openai", on=DAY))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 8
    assert None not in found
    assert len(set(found)) == 1


FORKED_IN_THE_IMPORT = """
import os, signal, sys, threading, time
from paygent import catalogue

begun = threading.Event()


class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "genai_prices":
            begun.set()
            time.sleep(0.5)


sys.meta_path.insert(0, Slow())
thread = threading.Thread(target=catalogue.lookup, args=("gpt-4o", "openai"))
thread.start()
begun.wait()
child = os.fork()
if child == 0:
    signal.alarm(60)
    os._exit(0 if catalogue.lookup("gpt-4o-mini", "openai") is not None else 1)
thread.join()
print(os.waitpid(child, 0)[1])
"""


def test_a_child_forked_while_the_prices_are_loaded_can_load_them():
    """A fork in the middle of the first look-up leaves no import behind that never ends in the child."""
    command = [sys.executable, "-W", "ignore", "-c", FORKED_IN_THE_IMPORT]
    told = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    assert told.stdout.strip() == "0"
