"""Settling one call: once, by what was reported, under names that can be stored, and never for nothing."""

import pytest
from engine_values import CENT, call, plan

from paygent import Paygent, ProviderRegistry
from paygent._connection import Store
from paygent.context import Payer
from paygent.core.bounds import DESCRIPTION_LENGTH_MAX, MODEL_LENGTH_MAX
from paygent.core.usage import Usage
from paygent.ledgers.memory import MemoryLedger
from paygent.meter.meter import Meter
from paygent.meter.options import Options
from paygent.meter.settlement import may_be_billed
from paygent.testing.clock import FakeClock


@pytest.fixture
def make():
    """An engine whose clock and whose ledger thread's steps are the test's, under a plan of 100 calls."""
    made = []

    def make(**options):
        clock = FakeClock()
        ledger = MemoryLedger(now_us=clock.now_us)
        meter = Meter(ledger, Options(boot=clock.boot, **options))
        meter.exporter.threaded = False
        pg = Paygent._replace(Paygent(meter, ProviderRegistry(), Store(ledger, "a test", None, "")))
        pg.configure_plan("default", plan(100))
        made.append(pg)
        return pg

    yield make
    for pg in made:
        pg.shutdown()


@pytest.fixture
def pg(make):
    return make()


def bracket(pg, model="m"):
    """A call of a cent."""
    return pg._meter.call(Payer("ada"), "openai", "chat", model, 0, 9)


def settled(pg, usage=None, response_model=None, model="m", tools=()):
    """The event of one call, by default of a cent."""
    with bracket(pg, model) as one:
        one.finish(usage or Usage(10), response_model, tools)
    return one.wallet.events[-1]


@pytest.mark.parametrize("again", ["finish", "finish_estimated", "fail"])
def test_a_call_is_settled_once(pg, again):
    """Whoever settles a call after another one changes nothing."""
    with bracket(pg) as one:
        one.finish(Usage(10))
        {
            "finish": lambda: one.finish(Usage(20)),
            "finish_estimated": lambda: one.finish_estimated(None, 100),
            "fail": lambda: one.fail(TimeoutError()),
        }[again]()
    assert [event.cost_nusd for event in one.wallet.events] == [CENT]
    assert (one.wallet.period_purse.held, one.wallet.period_purse.used) == (0, CENT)


def test_an_event_says_what_was_asked_for_and_what_answered(pg):
    """The model of the request and that of the answer are both kept."""
    event = settled(pg, response_model="m-2026")
    assert (event.model, event.request_model, event.response_model) == ("m", "m", "m-2026")


def test_a_model_that_only_the_answer_names_is_taken_for_the_one_asked_for(pg):
    """Where the request names no model the answer's stands for it."""
    event = settled(pg, response_model="m", model=None)
    assert (event.model, event.request_model, event.response_model) == ("m", "m", "m")


@pytest.mark.parametrize(
    "named, stored", [("m" * 1000, "m" * MODEL_LENGTH_MAX), ("m\ud800", "m?"), ("modèle", "modèle")]
)
def test_the_name_that_an_answer_gives_can_be_stored(pg, named, stored):
    """A name is cut to what is kept, and what has no encoding in it is replaced."""
    assert settled(pg, response_model=named).response_model == stored


def test_the_names_of_tools_can_be_stored(pg):
    """They are as much the answer's as the name of its model."""
    assert settled(pg, tools=("a" * 1000, "b\ud800")).tool_calls == ("a" * MODEL_LENGTH_MAX, "b?")


def test_a_description_without_a_cost_is_kept(pg):
    """What the caller says of an event is kept, up to its length, also where its tokens are priced."""
    said = "x" * (DESCRIPTION_LENGTH_MAX + 1)
    pg.record_event("ada", model="m", input_tokens=10, description=said)
    event = pg._meter.wallets["ada"].events[-1]
    assert event.description == said[:DESCRIPTION_LENGTH_MAX]
    assert (event.cost_explicit, event.cost_nusd) == (0, CENT)


def test_a_report_that_cannot_be_priced_posts_the_reservation(pg, caplog):
    """A unit without a rate costs what was reserved, never nothing, and the event says so."""
    event = settled(pg, Usage(10, seconds=3.0), "m-2")
    assert (event.cost_nusd, event.estimated) == (CENT + 1, 1)
    assert "no price is known for the model 'm-2'" in caplog.text


def test_a_journal_that_breaks_costs_no_event(pg, caplog, monkeypatch):
    """Whatever the journal raises, the call is posted, and the log says what was wrong."""
    monkeypatch.setattr(pg._meter.journal, "append", lambda event: 1 / 0)
    assert settled(pg).cost_nusd == CENT
    assert "a fault of its own while journalling an event" in caplog.text


def test_an_answer_of_a_model_without_a_price_is_told_of(pg, caplog):
    """Where only the answer names a model that nobody can price, the log says which one it is."""
    pg.configure_plan("default", plan(100, cost_rates={}))
    assert settled(pg, response_model="unheard-of", model=None).rate_source == "unpriced"
    assert "no price is known for the model 'unheard-of'" in caplog.text


def test_a_cost_of_the_callers_own_needs_no_price(pg, caplog):
    """Of what an app records with its cost the log says nothing, whatever the model."""
    pg.configure_plan("default", plan(100, cost_rates={}))
    pg.record_event("ada", model="unheard-of", input_tokens=10, cost=0.01)
    assert "no price is known" not in caplog.text


def test_a_full_batch_goes_to_the_ledger_before_its_time(make, monkeypatch):
    """The event that fills a batch has it sent; those before and after it wait for the next tick."""
    pg = make(max_batch_size=3, flush_interval_s=1e6)
    call(pg)
    pg._meter.exporter.run_step()
    pg._meter.exporter.flush()
    pg._meter.exporter.run_step()
    submitted = []
    monkeypatch.setattr(pg._meter.exporter, "submit", submitted.append)
    sent = []
    for _ in range(4):
        call(pg)
        sent.append(len(submitted))
    assert sent == [0, 0, 1, 1]


def test_errors_that_cause_each_other_are_told_apart_in_the_end():
    """A chain of causes that leads back to itself is followed for a while, not for ever."""
    first, second = ValueError(), ValueError()
    first.__cause__, second.__cause__ = second, first
    assert may_be_billed(first) is False


def test_a_batch_without_metadata_is_remembered(pg):
    """Whom a batch belongs to is stored, whether or not anything else was said of it."""
    pg._meter.remember_job(Payer("ada"), "openai", "batch-1", "m")
    pg._meter.exporter.run_step()
    job = pg._meter.ledger.job("openai", "batch-1")
    assert (job.user_id, job.metadata) == ("ada", None)
