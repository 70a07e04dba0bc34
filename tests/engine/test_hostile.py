"""What users of an app may send, and faults in the moment of a decision: neither opens the gate."""

import threading
from collections.abc import Mapping

import pytest

from paygent import ModelCostRate, Paygent, PaygentLimitExceeded, PlanConfig
from paygent.context import Payer
from paygent.core.usage import Usage

RATES = {"m": ModelCostRate(input=0.0, output=1.0)}  # a dollar per 1 000 tokens


@pytest.fixture
def pg(tmp_path):
    pg = Paygent.init(db_path=tmp_path / "p.db", auto_instrument=False)
    yield pg
    pg.shutdown()


def attempt(pg, user="u", *, max_tokens=100, metadata=None, spend=100):
    with pg._meter.call(Payer(user, metadata=metadata), "openai", "chat", "m", 4, max_tokens) as call:
        call.finish(Usage(1, spend))
        return call.state.name


def test_a_negative_max_tokens_reserves_no_less_than_nothing_said(pg):
    """A call that claims a negative output makes no room for others."""
    pg.configure_plan(
        "default",
        PlanConfig(
            max_spend_per_period=1.0, pre_call_estimate=True, pre_call_buffer_tokens=10, cost_rates=RATES
        ),
    )
    with pg._meter.call(Payer("u"), "openai", "chat", "m", 4, -(10**9)):
        admitted = sum(passes(pg) for _ in range(50))
    assert admitted <= 10


def passes(pg):
    try:
        return bool(attempt(pg))
    except PaygentLimitExceeded:
        return False


class Trap(Mapping):
    def __getitem__(self, key):
        raise RuntimeError(key)

    def __iter__(self):
        raise RuntimeError("iterated")

    def __len__(self):
        return 1


def test_metadata_that_raises_does_not_open_a_closed_gate(pg):
    """A spent user stays refused, whatever the metadata of the call does."""
    pg.configure_plan("default", PlanConfig(max_spend_per_period=0.05, cost_rates=RATES))
    attempt(pg)
    for _ in range(3):
        with pytest.raises(PaygentLimitExceeded):
            attempt(pg, metadata=Trap())


def test_a_plan_of_a_newer_version_still_limits(pg):
    """Fields that this version does not know are passed over; the cap beside them holds."""
    plan = '{"max_spend_per_period": 0.0, "a_field_of_tomorrow": 1}'
    pg._meter.exporter.call(lambda ledger: ledger.put_plan("default", plan)).result(5)
    with pytest.raises(PaygentLimitExceeded):
        attempt(pg)


def test_a_ledger_thread_that_cannot_start_once_starts_later(pg, monkeypatch):
    """One failed start of a thread costs no limit after it."""
    real, left = threading.Thread.start, [1]

    def start(thread):
        if thread.name == "paygent-ledger" and left:
            left.pop()
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    pg._meter.plans["default"] = PlanConfig(max_spend_per_period=0.0)
    assert attempt(pg) == "DONE" or not left
    pg.configure_plan("default", PlanConfig(max_spend_per_period=0.0))
    with pytest.raises(PaygentLimitExceeded):
        attempt(pg, "another")


def test_an_interrupt_in_a_callback_frees_the_hold(pg):
    """A callback that ends the process by an exception leaves no hold behind."""
    pg.configure_plan("default", PlanConfig(max_spend_per_period=0.15, soft_gate_at=0.1, cost_rates=RATES))
    attempt(pg)

    def leave(result):
        raise SystemExit(3)

    pg.on_soft_gate(leave)
    with pytest.raises(SystemExit):
        attempt(pg)
    assert pg.get_usage("u").reserved_cost == 0


def test_names_of_models_that_spend_nothing_are_not_kept(pg):
    """A user who makes up model names grows no memory by calls that fail."""
    pg.configure_plan("default", PlanConfig())
    for index in range(300):
        call = pg._meter.call(Payer("u"), "openai", "chat", f"made-up-{index}", 4, 10)
        with call:
            call.fail(ValueError("the provider knows no such model"))
    pg.refresh_user("u")
    assert len(pg._meter.wallets["u"].purses) < 10


def test_a_ledger_that_hangs_after_its_first_answer_refuses_nobody():
    """Who has spent nothing is not told that others are in the way when the ledger goes away."""
    pg = Paygent.init(ledger="memory://", auto_instrument=False, busy_timeout=0.6)
    pg.configure_plan("default", PlanConfig(max_spend_per_period=10.0, cost_rates=RATES))
    lease, released, answered = pg._meter.ledger.lease, threading.Event(), []

    def hanging(requests):
        if answered:
            released.wait(20)
        answered.append(lease(requests))
        return answered[-1]

    pg._meter.ledger.lease = hanging
    try:
        assert attempt(pg) == "DONE"
    finally:
        released.set()
        pg.shutdown()
