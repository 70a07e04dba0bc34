"""What goes wrong: providers, the ledger, and our own code. The caller's call goes on."""

from __future__ import annotations

import asyncio

import openai
import pytest
from api_world import (
    MESSAGES,
    answer,
    ask,
    async_openai_client,
    events,
    openai_client,
    plan,
    spend,
)

from paygent import Paygent, PaygentLimitExceeded, PaygentUnavailable, paygent_context
from paygent.ledger import LedgerError
from paygent.ledgers.memory import MemoryLedger
from paygent.testing.llm_server import Answer


@pytest.fixture
def capped(pg):
    """A Paygent whose default plan allows one dollar."""
    pg.configure_plan("default", plan(max_spend_per_period=1.0))
    return pg


@pytest.fixture
def broken_ledger(tmp_path):
    """Return the path of a database that cannot be opened: a folder is in its place."""
    path = tmp_path / "p.db"
    path.mkdir()
    return path


# -- providers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 429, 500])
def test_an_error_of_the_provider_costs_nothing(capped, status):
    """The SDK's own error reaches the caller, the hold is freed, nothing is charged."""
    body = Answer(status=status, body=b'{"error": {"message": "no"}}')
    with paygent_context("ann"), pytest.raises(openai.APIStatusError):
        ask(openai_client(body))
    usage = capped.get_usage("ann")
    assert (usage.period_cost, usage.reserved_cost) == (0.0, 0.0)
    assert events(capped) == []


class _Hanging:
    """A transport that has taken the request and answers nothing."""

    def __init__(self):
        self.sent = asyncio.Event()

    async def __call__(self):
        self.sent.set()
        await asyncio.Event().wait()


async def _cancelled_call(pg):
    hanging = _Hanging()
    task = asyncio.ensure_future(
        pg.awrap(hanging(), user_id="ann", model="gpt-4o", estimated_input_tokens=1000)
    )
    await hanging.sent.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancelled_call_posts_its_input(capped):
    """A call given up after it was sent may be billed: its input is posted as an estimate."""
    await _cancelled_call(capped)
    [event] = events(capped)
    assert (event.estimated, event.input_tokens, event.output_tokens) == (1, 1000, 0)
    assert event.cost_nusd == 10_000_000
    assert capped.get_usage("ann").reserved_cost == 0.0


async def test_a_cancelled_call_can_be_void():
    """``init(on_cancel="void")``: nothing is posted, the hold is freed."""
    pg = Paygent.init(ledger="memory://", on_cancel="void")
    pg.configure_plan("default", plan(max_spend_per_period=1.0))
    await _cancelled_call(pg)
    assert events(pg) == []
    assert pg.get_usage("ann").reserved_cost == 0.0


def test_a_timed_out_call_posts_its_input(capped):
    """A read timeout of the SDK after sending posts the input as an estimate."""
    from paygent.testing.llm_server._values import Controls

    hang = Answer(body=b"", controls=Controls(hang=True))
    with paygent_context("ann"), pytest.raises(openai.APITimeoutError):
        ask(openai_client(hang), timeout=0.01)
    [event] = events(capped)
    assert event.estimated
    assert event.input_tokens > 0


@pytest.mark.parametrize("tokens", [-5, 100_000_001], ids=["negative", "absurd"])
def test_usage_that_cannot_be_right_is_posted_as_the_hold(capped, log, tokens):
    """The reservation is charged, the event is flagged, and the log says so."""
    with paygent_context("ann"):
        ask(openai_client(answer(tokens, 10)), max_tokens=100)
    [event] = events(capped)
    assert (event.estimated, event.rate_source) == (1, "hold")
    assert 0 < event.cost_nusd < 10_000_000
    assert any("impossible usage" in r.message for r in log.records)


def test_a_part_of_usage_below_zero_is_posted_as_the_hold(capped, log):
    """Cached tokens below zero would make the others dearer: such a report is not believed either."""
    report = answer(100, 10)
    report["usage"]["prompt_tokens_details"] = {"cached_tokens": -50}
    with paygent_context("ann"):
        ask(openai_client(report), max_tokens=100)
    [event] = events(capped)
    assert (event.estimated, event.rate_source, event.cache_read_input_tokens) == (1, "hold", 0)
    assert any("impossible usage" in r.message for r in log.records)


def test_large_usage_is_posted_in_full(capped):
    """Up to 100 million tokens are taken as reported."""
    with paygent_context("ann"):
        ask(openai_client(answer(90_000_000, 0)))
    assert capped.get_usage("ann").period_cost == 900.0


# -- the ledger ------------------------------------------------------------------------------------------


def test_calls_go_on_without_a_ledger(broken_ledger, log):
    """A database that cannot be opened: calls pass, one warning, ``queue_stats`` shows it."""
    pg = Paygent.init(db_path=broken_ledger)
    for _ in range(3):
        with paygent_context("ann"):
            assert ask(openai_client()).usage.total_tokens == 2000
    stats = pg.queue_stats
    assert (stats["degraded"], stats["pending"], stats["dropped"]) == (True, 3, 0)
    assert "p.db" in stats["last_error"]
    assert len([r for r in log.records if "the ledger is away" in r.message]) == 1


def test_limits_hold_without_a_ledger(broken_ledger):
    """Fail-open has a bound: the plan configured in this process is enforced."""
    pg = Paygent.init(db_path=broken_ledger)
    pg.configure_plan("default", plan(max_spend_per_period=0.08))
    for _ in range(2):
        pg.wrap(answer, user_id="ann", model="gpt-4o")
    assert pg.check_guard("ann").status == "hard_gate"
    with pytest.raises(PaygentLimitExceeded):
        pg.wrap(answer, user_id="ann", model="gpt-4o")


def test_a_plan_assigned_without_a_ledger_binds(broken_ledger):
    """What is configured and assigned in this process holds though it cannot be stored yet."""
    pg = Paygent.init(db_path=broken_ledger)
    pg.configure_plan("pro", plan(max_spend_per_period=0))
    assert pg.assign_plan("ann", "pro").plan == "pro"
    with pytest.raises(PaygentLimitExceeded):
        pg.wrap(answer, user_id="ann", model="gpt-4o")


def test_events_are_written_when_the_file_returns(broken_ledger):
    """What was metered meanwhile is in the database as soon as it can be opened."""
    pg = Paygent.init(db_path=broken_ledger, flush_interval=0.05)
    pg.wrap(answer, user_id="ann", model="gpt-4o")
    broken_ledger.rmdir()
    assert pg.flush() >= 0
    pg.shutdown()
    again = Paygent.init(db_path=broken_ledger)
    assert len(events(again, "ann")) == 1


def test_failing_closed_raises_unavailable(broken_ledger):
    """``init(fail_open=False)``: the outside world is to blame, not the user's limit."""
    pg = Paygent.init(db_path=broken_ledger, fail_open=False)
    made = []
    with pytest.raises(PaygentUnavailable):
        pg.wrap(lambda: made.append(1), user_id="ann", model="gpt-4o")
    with paygent_context("ann"), pytest.raises(PaygentUnavailable):
        ask(openai_client())
    assert made == []


async def test_failing_closed_raises_unavailable_for_async_calls(broken_ledger):
    """The asynchronous twin is refused likewise."""
    Paygent.init(db_path=broken_ledger, fail_open=False)
    with paygent_context("ann"), pytest.raises(PaygentUnavailable):
        await async_openai_client().chat.completions.create(model="gpt-4o", messages=MESSAGES)


# -- our own code ----------------------------------------------------------------------------------------

INTERNALS = [
    "paygent.meter.gate.Gate._admit",
    "paygent.meter.call.size",
    "paygent.meter.call.Call._purses",
    "paygent.meter.settlement.priced",
    "paygent.meter.settlement._event",
    "paygent.meter.settlement.post",
    "paygent.journal.Journal.append",
    "paygent.meter.meter.Meter.payer",
    "paygent.meter.meter.Meter.call",
    "paygent.meter.tariff.Tariff.terms",
    "paygent.meter.audit.AuditTrail.add",
    "paygent.instrumentation.registry.ProviderRegistry.receive",
]


def _raises(*args, **kwargs):
    raise RuntimeError("a fault of ours")


@pytest.mark.parametrize("internal", INTERNALS)
@pytest.mark.parametrize("way", ["sdk", "wrap", "awrap", "record_event"])
async def test_a_fault_of_ours_never_reaches_the_caller(tmp_path, monkeypatch, internal, way):
    """Whatever breaks inside, the call is made, its answer returned, and no hold stays."""
    pg = Paygent.init(db_path=tmp_path / "p.db")
    pg.configure_plan("default", plan(max_spend_per_period=1.0, soft_gate_at=0.0))
    spend(pg, "ann", 0.01)
    monkeypatch.setattr(internal, _raises)

    async def result():
        return answer()

    if way == "sdk":
        with paygent_context("ann"):
            assert ask(openai_client()).usage.total_tokens == 2000
    elif way == "wrap":
        assert pg.wrap(answer, user_id="ann", model="gpt-4o") == answer()
    elif way == "awrap":
        assert await pg.awrap(result(), user_id="ann", model="gpt-4o") == answer()
    else:
        pg.record_event("ann", cost=0.01)
    monkeypatch.undo()
    assert pg.get_usage("ann").reserved_cost == 0.0


QUESTIONS = {
    "check_guard": lambda pg: pg.check_guard("ann", "gpt-4o").status == "ok",
    "is_within_limit": lambda pg: pg.is_within_limit("ann", "gpt-4o"),
    "get_remaining_budget": lambda pg: pg.get_remaining_budget("ann").most_constrained == "unbounded",
    "get_usage": lambda pg: pg.get_usage("ann").period_cost == 0.0,
    "get_model_usage": lambda pg: pg.get_model_usage("ann") == [],
    "get_user_state": lambda pg: pg.get_user_state("ann").user_id == "ann",
    "refresh_user": lambda pg: pg.refresh_user("ann").user_id == "ann",
    "assign_plan": lambda pg: pg.assign_plan("ann", "pro").plan == "pro",
    "start_session": lambda pg: pg.start_session("ann").plan == "default",
    "configure_plan": lambda pg: pg.configure_plan("pro", plan()) is None,
    "reset_user": lambda pg: pg.reset_user("ann") is None,
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_fault_of_ours_is_answered_permissively(pg, monkeypatch, log, question):
    """Reading and configuring go on, with the answer of an unlimited user, and the fault is logged."""
    for internal in ("loaded", "is_loaded", "refreshed", "put_plan", "put_account"):
        monkeypatch.setattr(f"paygent.meter.accounts.{internal}", _raises)
    monkeypatch.setattr(pg._meter, "forget", _raises)
    assert QUESTIONS[question](pg)
    assert any("a fault of its own" in r.message for r in log.records)


def test_a_fault_of_a_ledger_never_reaches_the_caller(monkeypatch, pg):
    """A store that raises what it must not is one more fault of ours."""
    monkeypatch.setattr(MemoryLedger, "lease", _raises)
    assert pg.wrap(answer, user_id="ann", model="gpt-4o") == answer()
    assert pg.get_usage("ann").period_cost >= 0.0


def test_a_ledger_that_goes_away_is_waited_for_once(monkeypatch, pg, ledger_waits):
    """The first call that meets a silent ledger waits for its answer, the others do not."""
    pg.configure_plan("default", plan(max_spend_per_period=0.04))

    def away(*args):
        raise LedgerError("away")

    monkeypatch.setattr(MemoryLedger, "lease", away)
    ledger_waits.forget()
    for user in range(50):
        pg.wrap(answer, user_id=f"user {user}", model="gpt-4o")
    assert len(ledger_waits) == 1
    assert pg.queue_stats["degraded"]
