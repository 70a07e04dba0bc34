"""``record_event``: usage that no SDK call stands for."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from api_world import answer, events, gate_events, plan

from paygent import ModelLimitConfig, Paygent, PaygentLimitExceeded, paygent_context, paygent_exempt
from paygent.context import Payer, as_payer


def test_a_cost_is_recorded_as_it_is(pg):
    """The event says what was given, and the user has used it."""
    event = pg.record_event("ann", cost=0.25, description="a report", metadata={"pages": 3})
    assert (event.user_id, event.cost_total, event.cost_nusd) == ("ann", 0.25, 250_000_000)
    assert (event.source, event.cost_explicit, event.description) == ("manual", True, "a report")
    assert event.metadata == {"pages": 3}
    assert pg.get_usage("ann").period_cost == 0.25


def test_tokens_are_priced_by_the_plan(pg):
    """Without a cost, model and tokens are priced like a call, and count against the model's limit."""
    limits = {"gpt-4o": ModelLimitConfig(max_tokens_per_period=3000)}
    pg.configure_plan("default", plan(model_limits=limits))
    event = pg.record_event("ann", model="gpt-4o", input_tokens=1000, output_tokens=2000)
    assert (event.cost_total, event.total_tokens, event.cost_explicit) == (0.07, 3000, False)
    assert pg.check_guard("ann", "gpt-4o").gate_reason == "model_limit:gpt-4o"


def test_a_cost_wins_over_the_price_of_its_tokens(pg):
    """With both, the cost is charged and the tokens are kept."""
    pg.configure_plan("default", plan())
    event = pg.record_event("ann", cost=1.0, model="gpt-4o", input_tokens=5)
    assert (event.cost_total, event.input_tokens) == (1.0, 5)
    assert pg.get_usage("ann").period_cost_by_model == {"gpt-4o": 1.0}


def test_a_cost_of_zero_is_stored(pg):
    """Zero is an amount: the event is there."""
    assert pg.record_event("ann", cost=0).cost_total == 0.0
    assert len(events(pg, "ann")) == 1


def test_without_a_user_it_is_the_contexts(pg):
    """In a context the event belongs to its user and session."""
    with paygent_context("ann", session_id="s", metadata={"a": 1}):
        event = pg.record_event(cost=1.0)
    assert (event.user_id, event.session_id, event.metadata) == ("ann", "s", {"a": 1})


def test_an_explicit_user_wins_over_the_context(pg):
    """The context's session belongs to the context's user alone."""
    with paygent_context("ann", session_id="s"):
        event = pg.record_event("bob", cost=1.0)
    assert event.user_id == "bob"
    assert event.session_id != "s"


def test_without_any_user_nothing_is_recorded(pg):
    """Outside of a context, and in an exempt block, there is nobody to charge."""
    assert pg.record_event(cost=1.0) is None
    assert pg.record_event("", cost=1.0) is None
    with paygent_context("ann"), paygent_exempt():
        assert pg.record_event(cost=1.0) is None
    assert events(pg) == []


def test_a_user_who_is_resolved_late_is_found(pg):
    """A context that finds its user on demand is asked, and may find nobody."""
    with as_payer(Payer(None, resolve=lambda: "ann")):
        assert pg.record_event(cost=1.0).user_id == "ann"
    with as_payer(Payer(None, resolve=lambda: None)):
        assert pg.record_event(cost=1.0) is None


def test_within_a_bracket_it_counts_beside_the_call(pg):
    """What a wrapped call records by hand is counted too."""

    def call():
        pg.record_event(cost=1.0)
        return answer(1, 0)

    pg.wrap(call, user_id="ann", model="gpt-4o")
    assert pg.get_usage("ann").period_cost == pytest.approx(1.0, abs=0.01)


def test_it_never_gates(pg):
    """A spent user is charged all the same; no decision is made, the next call is refused."""
    pg.configure_plan("default", plan(max_spend_per_period=1.0))
    heard = []
    pg.on_hard_gate(heard.append)
    pg.record_event("ann", cost=5.0)
    pg.record_event("ann", cost=5.0)
    assert pg.get_usage("ann").period_cost == 10.0
    assert heard == []
    assert [row for row in gate_events(pg) if row.status == "hard_gate"] == []
    with pytest.raises(PaygentLimitExceeded):
        pg.wrap(answer, user_id="ann", model="gpt-4o")


def test_it_never_gates_a_model_that_the_plan_does_not_list(pg):
    """What has been used is recorded, whatever the plan says of it."""
    pg.configure_plan("default", plan(max_spend_per_period=1.0))
    event = pg.record_event("ann", cost=0.5, model="somebody-elses", input_tokens=10)
    assert (event.model, event.cost_total) == ("somebody-elses", 0.5)


def test_a_model_without_a_price_is_warned_of(pg, log):
    """Unknown never becomes zero silently."""
    pg.record_event("ann", model="house-model", input_tokens=10)
    assert any("no price is known for the model 'house-model'" in r.message for r in log.records)


@pytest.mark.parametrize(
    "amounts, named",
    [
        ({"cost": -1}, "cost"),
        ({"cost": float("nan")}, "cost"),
        ({"cost": float("inf")}, "cost"),
        ({"cost": float("-inf")}, "cost"),
        ({"cost": 1e30}, "cost"),
        ({"cost": "1"}, "cost"),
        ({"cost": True}, "cost"),
        ({"model": "gpt-4o", "input_tokens": -1}, "input_tokens"),
        ({"model": "gpt-4o", "input_tokens": 1.5}, "input_tokens"),
        ({"model": "gpt-4o", "output_tokens": float("nan")}, "output_tokens"),
        ({"model": "gpt-4o", "output_tokens": "7"}, "output_tokens"),
        ({"model": "gpt-4o", "output_tokens": 10**30}, "output_tokens"),
        ({"model": "\ud800"}, "model"),
        ({"cost": 1, "description": "\ud800"}, "description"),
        ({"cost": 1, "idempotency_key": 5}, "idempotency_key"),
        ({}, "cost, or model"),
        ({"input_tokens": 5}, "cost, or model"),
    ],
    ids=str,
)
def test_amounts_that_cannot_be_right_are_refused(pg, amounts, named):
    """Each is a ``ValueError`` that names the argument, and nothing is counted."""
    with pytest.raises(ValueError, match=named):
        pg.record_event("ann", **amounts)
    assert events(pg) == []


def test_the_same_key_counts_once(pg):
    """A repeat returns the event that was counted, and counts nothing."""
    heard = []
    pg.on_usage(heard.append)
    first = pg.record_event("ann", cost=1.0, idempotency_key="order-7")
    again = pg.record_event("ann", cost=1.0, idempotency_key="order-7")
    assert again == first
    assert (pg.get_usage("ann").period_cost, len(heard)) == (1.0, 1)


def test_the_same_key_of_another_user_is_another_event(pg):
    """Keys are the users' own."""
    pg.record_event("ann", cost=1.0, idempotency_key="order-7")
    pg.record_event("bob", cost=1.0, idempotency_key="order-7")
    assert pg.get_usage("bob").period_cost == 1.0


def test_the_same_key_counts_once_across_restarts(tmp_path):
    """The ledger remembers the key for ever, in whatever process it comes again."""
    for _ in range(3):
        pg = Paygent.init(db_path=tmp_path / "p.db")
        pg.record_event("ann", cost=1.0, idempotency_key="order-7")
        pg.shutdown()
    assert Paygent.init(db_path=tmp_path / "p.db").get_usage("ann").period_cost == 1.0


class Unprintable:
    def __repr__(self):
        raise RuntimeError


def _circular():
    value = {}
    value["self"] = value
    return value


@pytest.mark.parametrize(
    "metadata",
    [
        {"at": datetime(2026, 3, 10, tzinfo=timezone.utc)},
        {"set": {1}},
        {1: "number", ("a", "b"): 2},
        {"nan": float("nan")},
        {"surrogate": "\ud800"},
        {"odd": Unprintable()},
        _circular(),
    ],
    ids=["datetime", "set", "keys", "nan", "surrogate", "unprintable", "circular"],
)
def test_metadata_that_is_not_json_never_loses_the_event(tmp_path, metadata):
    """What JSON cannot hold is kept as text or left out; the amount is counted, and reaches the ledger."""
    pg = Paygent.init(db_path=tmp_path / "p.db")
    assert pg.record_event("ann", cost=1.0, metadata=metadata).cost_total == 1.0
    assert len(events(pg, "ann")) == 1


def test_metadata_that_is_not_json_is_kept_as_its_text(pg):
    """A date is readable in the event."""
    event = pg.record_event(
        "ann", cost=1.0, metadata={"at": datetime(2026, 3, 10, tzinfo=timezone.utc), "n": 1}
    )
    assert event.metadata == {"at": "2026-03-10 00:00:00+00:00", "n": 1}


def test_tokens_beyond_a_hundred_million_are_recorded_in_full(pg):
    """The bound on what a provider may report is not one on what the app records itself."""
    pg.configure_plan("default", plan())
    event = pg.record_event("ann", model="gpt-4o", input_tokens=200_000_000)
    assert (event.input_tokens, event.cost_total) == (200_000_000, 2000.0)
