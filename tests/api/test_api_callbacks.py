"""The four callbacks and the audit trail."""

from __future__ import annotations

import threading

import pytest
from api_world import answer, anthropic_client, ask, gate_events, openai_client, plan, spend

from paygent import ModelLimitConfig, Paygent, PaygentLimitExceeded, paygent_context

SLOTS = ["on_soft_gate", "on_hard_gate", "on_usage", "on_session_start"]


@pytest.fixture
def capped(pg):
    """A Paygent whose default plan allows 20 cents: five calls, the soft mark after the fourth."""
    pg.configure_plan("default", plan(max_spend_per_period=0.2))
    return pg


def call(pg, user_id="ann", result=None, **options):
    return pg.wrap(lambda: result or answer(), **{"user_id": user_id, "model": "gpt-4o", **options})


def until_refused(pg, user_id="ann", result=None):
    for _ in range(100):
        try:
            call(pg, user_id, result)
        except PaygentLimitExceeded:
            return
    raise AssertionError("no call was refused")


@pytest.mark.parametrize("slot", SLOTS)
def test_callbacks_fire_in_order_and_one_that_raises_stops_no_other(capped, slot, log):
    """Several per slot, in the order of registration; what one raises is logged, nothing else."""
    fired = []
    getattr(capped, slot)(lambda value: fired.append("first"))
    getattr(capped, slot)(lambda value: 1 / 0)
    getattr(capped, slot)(lambda value: fired.append("third"))
    until_refused(capped)
    assert fired
    assert fired == ["first", "third"] * (len(fired) // 2)
    assert any("a callback of yours raised" in r.message for r in log.records)


@pytest.mark.parametrize("slot", SLOTS)
def test_a_callback_may_call_every_method(capped, slot):
    """No lock is held while a callback runs: it may ask and change everything."""
    seen = []

    def callback(value):
        if seen:
            return
        seen.append(value)
        capped.check_guard("ann", "gpt-4o")
        capped.get_usage("ann")
        capped.get_user_state("ann")
        capped.get_max_tokens("ann", "gpt-4o")
        capped.record_event("ann", cost=0.001)
        capped.configure_plan("other", plan())
        capped.flush()

    getattr(capped, slot)(callback)
    done = threading.Thread(target=until_refused, args=(capped,), daemon=True)
    done.start()
    done.join(10)
    assert not done.is_alive()
    assert len(seen) == 1


def test_on_usage_gets_the_event(capped):
    """The event says who, what and how much."""
    seen = []
    capped.on_usage(seen.append)
    call(capped, metadata={"feature": "sum"})
    [event] = seen
    assert (event.user_id, event.model, event.total_tokens) == ("ann", "gpt-4o", 2000)
    assert (event.cost_tokens, event.cost_tools, event.cost_total, event.cost_nusd) == (
        0.04,
        0,
        0.04,
        40_000_000,
    )
    assert (event.metadata, event.synced, event.source) == ({"feature": "sum"}, False, "auto")


async def test_on_usage_fires_on_every_metering_path(capped):
    """Patched SDK, ``wrap``, ``awrap`` and ``record_event`` all report their event."""
    seen = []
    capped.on_usage(lambda event: seen.append(event.source))

    async def result():
        return answer()

    with paygent_context("ann"):
        ask(openai_client())
    call(capped, "bob")
    await capped.awrap(result(), user_id="cid", model="gpt-4o")
    capped.record_event("dan", cost=0.01)
    assert seen == ["auto", "auto", "auto", "manual"]


def test_on_hard_gate_fires_before_the_refusal_is_raised(capped):
    """The callback sees the answer of the gate before the caller does."""
    order = []
    capped.on_hard_gate(order.append)
    spend(capped, "ann", 0.2)
    with pytest.raises(PaygentLimitExceeded) as caught:
        call(capped)
    assert order == [caught.value.guard_result]
    assert order[0].status == "hard_gate"
    assert order[0].message


def test_on_soft_gate_fires_for_each_call_above_the_mark(capped):
    """Once when a post crosses the mark, then before each call that is admitted above it."""
    seen = []
    capped.on_soft_gate(lambda result: seen.append(round(result.usage_pct, 6)))
    for _ in range(5):
        call(capped)
    assert seen == [0.8, 0.8]


@pytest.mark.parametrize("output_tokens", [1000, 6000, 20_000], ids=["step by step", "at once", "beyond"])
def test_soft_precedes_hard(capped, output_tokens):
    """However large the steps, a user hears of the soft gate before the hard one."""
    order = []
    capped.on_soft_gate(lambda result: order.append("soft"))
    capped.on_hard_gate(lambda result: order.append("hard"))
    until_refused(capped, result=answer(1000, output_tokens))
    assert order[0] == "soft"
    assert order[-1] == "hard"


def test_soft_precedes_hard_on_a_model_limit(pg):
    """The mark of a model's tokens is told of like that of a spend cap."""
    limits = {"gpt-4o": ModelLimitConfig(max_tokens_per_period=4000)}
    pg.configure_plan("default", plan(model_limits=limits))
    reasons = []
    pg.on_soft_gate(lambda result: reasons.append((result.status, result.gate_reason)))
    pg.on_hard_gate(lambda result: reasons.append((result.status, result.gate_reason)))
    until_refused(pg)
    assert reasons == [("soft_gate", "model_limit:gpt-4o"), ("hard_gate", "model_limit:gpt-4o")]


def test_on_session_start_fires_once_per_load(capped):
    """A user is announced when he is first loaded, and again after ``reset_user``."""
    seen = []
    capped.on_session_start(lambda state: seen.append((state.user_id, state.plan)))
    capped.start_session("ann")
    capped.get_usage("ann")
    call(capped)
    capped.start_session("ann")
    assert seen == [("ann", "default")]
    capped.flush()
    capped.reset_user("ann")
    call(capped)
    assert seen == [("ann", "default")] * 2


@pytest.mark.parametrize("how", ["call", "start_session", "get_usage", "get_user_state", "assign_plan"])
def test_every_way_of_loading_announces_the_user(capped, how):
    """Whoever loads the user first: the callback hears of it."""
    seen = []
    capped.on_session_start(seen.append)
    if how == "call":
        call(capped)
    elif how == "assign_plan":
        capped.assign_plan("ann", "default")
    else:
        getattr(capped, how)("ann")
    assert [state.user_id for state in seen] == ["ann"]


def test_a_gate_event_is_kept_for_each_decision(capped):
    """The audit trail holds every decision other than *ok*, with what it was about."""
    for _ in range(5):
        call(capped)
    with pytest.raises(PaygentLimitExceeded):
        call(capped, metadata={"feature": "sum"}, session_id="s")
    rows = gate_events(capped, "ann")
    assert [(row.status, row.blocked) for row in rows] == [
        ("soft_gate", 0), ("soft_gate", 0), ("hard_gate", 1)
    ]  # fmt: skip
    last = rows[-1]
    assert (last.gate_reason, last.model, last.metadata, last.session_id) == (
        "total_spend", "gpt-4o", {"feature": "sum"}, "s"
    )  # fmt: skip
    assert (last.current_value, last.limit_value, last.usage_pct) == (0.2, 0.2, 1.0)


def test_a_hammered_gate_fills_no_disk(capped):
    """More than ten equal decisions a second become one row with a count; none is lost."""
    spend(capped, "ann", 0.2)
    for _ in range(200):
        with pytest.raises(PaygentLimitExceeded):
            call(capped)
    rows = [row for row in gate_events(capped, "ann") if row.status == "hard_gate"]
    assert sum(row.count for row in rows) == 200
    assert len(rows) < 60


def test_without_raising_the_call_runs_and_is_posted_beyond_the_cap():
    """``raise_on_hard_gate=False``: callbacks fire, the call runs, the trail says it was not blocked."""
    pg = Paygent.init(ledger="memory://", raise_on_hard_gate=False)
    pg.configure_plan("default", plan(max_spend_per_period=0.04))
    fired = []
    pg.on_hard_gate(fired.append)
    with paygent_context("ann"):
        ask(openai_client())
        assert ask(openai_client()).usage.total_tokens == 2000
    assert pg.get_usage("ann").period_cost == 0.08
    assert [result.status for result in fired] == ["hard_gate"]
    assert [(row.status, row.blocked) for row in gate_events(pg, "ann")][-1] == ("hard_gate", 0)


OPENAI_TOOLS = answer(
    choices=[
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "message": {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "search", "arguments": "{}"}},
                    {"id": "2", "type": "function", "function": {"name": "other", "arguments": "{}"}},
                ],
            },
        }
    ]
)


@pytest.mark.parametrize(
    "fields, cost",
    [
        ({"tool_costs": {"search": 0.5}}, 0.52),
        ({"tool_costs": {"search": 0.5}, "default_tool_cost": 0}, 0.5),
        ({"tool_costs": {}, "default_tool_cost": 9}, 0.0),
    ],
    ids=["default for unlisted", "free default", "no tool costs"],
)
def test_tools_cost_what_the_plan_says(pg, fields, cost):
    """A listed tool costs its price, an unlisted one the default; without a list tools cost nothing."""
    pg.configure_plan("default", plan(**fields))
    seen = []
    pg.on_usage(seen.append)
    with paygent_context("ann"):
        ask(openai_client(OPENAI_TOOLS))
    [event] = seen
    assert event.tool_calls == ["search", "other"]
    assert (event.cost_tokens, event.cost_tools) == (0.04, cost)
    assert event.cost_total == pytest.approx(0.04 + cost)


def test_tools_of_anthropic_are_listed(pg):
    """``tool_use`` blocks of a message are the tools of its event."""
    pg.configure_plan(
        "default", plan(tool_costs={"search": 0.5}, default_cost_rate={"input": 0, "output": 0})
    )
    seen = []
    pg.on_usage(seen.append)
    body = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-9",
        "content": [{"type": "tool_use", "id": "t", "name": "search", "input": {}}],
        "stop_reason": "tool_use", "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1},
    }  # fmt: skip
    with paygent_context("ann"):
        anthropic_client(body).messages.create(
            model="claude-sonnet-9", max_tokens=10, messages=[{"role": "user", "content": "hi"}]
        )
    assert (seen[0].tool_calls, seen[0].cost_tools) == (["search"], 0.5)
