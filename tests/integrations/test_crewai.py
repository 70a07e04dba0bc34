from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
from crewai_bus import Crew, HookAborted, OpenAICompletion, Part, install

from paygent import ModelCostRate, PaygentLimitExceeded, PlanConfig, paygent_context

USAGE = {
    "prompt_tokens": 1000,
    "completion_tokens": 1000,
    "total_tokens": 2000,
    "cached_prompt_tokens": 400,
    "reasoning_tokens": 300,
}


@pytest.fixture
def bus(monkeypatch):
    return install(monkeypatch)


@pytest.fixture
def callback(pg, bus):
    from paygent.integrations import CrewAICallback

    return CrewAICallback(pg, user_id="ann", session_id="s1", metadata={"feature": "crew"})


@pytest.fixture
def crew(bus, callback):
    crew = Crew(bus, callback)
    crew.start()
    return crew


def test_a_call_is_metered_for_the_crews_user(posted, crew):
    """A completed call of the crew is one event with its usage, on the callback's user."""
    crew.call(usage=USAGE)
    (event,) = posted
    assert (event.user_id, event.session_id, event.metadata) == ("ann", "s1", {"feature": "crew"})
    assert (event.input_tokens, event.output_tokens, event.estimated) == (1000, 1000, False)


def test_cached_and_reasoning_tokens_are_kept(ledger_events, crew):
    """The parts of the usage that have prices of their own reach the ledger."""
    crew.call(usage=USAGE)
    (event,) = ledger_events("ann")
    assert (event.cache_read_input_tokens, event.reasoning_output_tokens) == (400, 300)


def test_a_step_records_nothing_by_itself(posted, crew, callback):
    """The step that follows a call counts nothing twice, and returns nothing."""
    crew.call(usage=USAGE)
    assert callback({"output": "Hello"}) is None
    assert len(posted) == 1


@pytest.mark.parametrize("usage", [None, {"total_tokens": 0}], ids=["none", "empty"])
def test_missing_usage_is_estimated_never_zero(posted, crew, usage):
    """A provider that reports nothing is charged by the text, and the event says so."""
    crew.call(usage=usage, messages=[{"role": "user", "content": "x" * 400}])
    (event,) = posted
    assert event.estimated is True
    assert event.input_tokens >= 50
    assert event.output_tokens == 3


def test_anthropics_own_names_are_added_up(posted, crew):
    """Where Anthropic's raw names stand, its input tokens leave the cache out."""
    crew.call(
        usage={
            "input_tokens": 100,
            "output_tokens": 10,
            "cache_read_input_tokens": 30,
            "cache_creation_input_tokens": 20,
        }
    )
    assert [event.input_tokens for event in posted] == [150]


def test_geminis_thinking_is_output(posted, crew):
    """Gemini's thoughts are billed as output: CrewAI's sum is read, not the answer alone."""
    crew.call(usage={"prompt_token_count": 9, "candidates_token_count": 5, "completion_tokens": 25})
    assert [(event.input_tokens, event.output_tokens) for event in posted] == [(9, 25)]


@pytest.mark.parametrize("nobody", ["", None], ids=["empty", "none"])
def test_a_callback_belongs_to_somebody(pg, bus, nobody):
    """Without a user no call would be counted: said where the callback is made."""
    from paygent.integrations import CrewAICallback

    with pytest.raises(ValueError, match="user_id must not be empty"):
        CrewAICallback(pg, user_id=nobody)


def test_two_crews_bill_two_users(pg, bus, posted, crew):
    """Crews that run in one process are told apart by their tasks."""
    from paygent.integrations import CrewAICallback

    other = Crew(bus, CrewAICallback(pg, "ben"))
    other.start()
    other.call(usage=USAGE)
    crew.call(usage=USAGE)
    assert [event.user_id for event in posted] == ["ben", "ann"]


def test_an_agent_of_another_crew_before_is_billed_to_its_crew_now(pg, bus, posted):
    """CrewAI leaves the first crew's callback on an agent; the crew that runs it pays."""
    from paygent.integrations import CrewAICallback

    first, second = CrewAICallback(pg, "ann"), CrewAICallback(pg, "ben")
    crew = Crew(bus, second, agent=Part(step_callback=first))
    crew.start()
    crew.call(usage=USAGE, task_id=None)
    assert [event.user_id for event in posted] == ["ben"]


def test_calls_of_nobodys_crew_are_left_alone(bus, posted, callback):
    """A crew without the callback is not billed to whoever has one."""
    crew = Crew(bus)
    crew.start()
    crew.call(usage=USAGE)
    assert posted == []


def test_one_subscription_serves_all_callbacks(pg, bus, posted, callback):
    """A callback per request adds no handler to the bus."""
    from paygent.integrations import CrewAICallback

    CrewAICallback(pg, "ben")
    assert [len(handlers) for handlers in bus.handlers.values()] == [1, 1]


def test_a_replayed_event_is_not_counted_again(posted, crew):
    """Events that CrewAI restores from a checkpoint were counted when they happened."""
    sys.modules["crewai.events.event_bus"].is_replaying = lambda: True
    crew.call(usage=USAGE)
    assert posted == []


def test_a_call_within_a_context_is_left_to_the_sdk(posted, crew):
    """With the SDK patched and a context set, the seam has counted an OpenAI call already."""
    with paygent_context("ann"):
        crew.call(OpenAICompletion(), usage=USAGE)
    assert posted == []


def test_without_a_context_the_callback_counts_an_openai_call(posted, crew):
    """Without a context the seam sees nobody, and the callback meters."""
    crew.call(OpenAICompletion(), usage=USAGE)
    assert [event.user_id for event in posted] == ["ann"]


def test_other_providers_are_counted_in_a_context_too(posted, crew):
    """The seam does not see other providers: the callback meters them whatever the context."""
    with paygent_context("ann"):
        crew.call(usage=USAGE)
    assert len(posted) == 1


def test_a_call_beyond_the_limit_is_posted_in_full(pg, posted, bus, crew):
    """The call was made when CrewAI reports it: it counts, also past the cap."""
    spend_all(pg)
    crew.call(usage=USAGE)
    assert [event.cost_total for event in posted if event.source == "auto"] == [pytest.approx(0.04)]
    assert bus.errors == []


def test_a_step_of_a_spent_user_stops_the_crew(pg, crew, callback):
    """Once the plan is spent the step raises the refusal, and the hard-gate callback fires."""
    fired = []
    pg.on_hard_gate(fired.append)
    spend_all(pg)
    crew.call(usage=USAGE)
    with pytest.raises(PaygentLimitExceeded):
        callback({"output": "Hello"})
    assert [result.gate_reason for result in fired] == ["total_spend"]


def test_a_spent_user_is_refused_before_the_call(pg, crew):
    """CrewAI asks before each model call: the refusal passes its handling of errors, and can be pickled."""
    spend_all(pg)
    with pytest.raises(PaygentLimitExceeded) as refused:
        crew.ask()
    assert isinstance(refused.value, HookAborted)
    assert type(pickle.loads(pickle.dumps(refused.value))) is PaygentLimitExceeded
    assert refused.value.guard_result.gate_reason == "total_spend"


def test_a_user_with_room_is_not_held_up(pg, crew, bus):
    """Before the cap the call goes on, and nothing is held for it."""
    crew.ask()
    assert bus.errors == []
    assert pg.get_usage("ann").reserved_cost == 0


def test_what_the_sdk_gates_the_hook_leaves_alone(pg, crew):
    """Within a context the patched SDK refuses an OpenAI call: the hook is silent, and other users' too."""
    spend_all(pg)
    with paygent_context("ben"):
        crew.ask(OpenAICompletion())


def test_a_crew_of_nobody_is_not_gated(pg, bus, callback):
    """The hook is CrewAI's for the whole process: crews without the callback are left alone."""
    spend_all(pg)
    crew = Crew(bus)
    crew.start()
    crew.ask()
    assert bus.errors == []


def test_a_missing_crewai_says_what_to_install():
    """Without CrewAI the constructor's error names the extra."""
    code = (
        "import sys; sys.modules['crewai'] = None\n"
        "from paygent import Paygent\nfrom paygent.integrations import CrewAICallback\n"
        "pg = Paygent.init(ledger='memory://')\n"
        "try:\n    CrewAICallback(pg, 'ann')\n"
        "except ImportError as error:\n    assert 'paygent[crewai]' in str(error), error\n"
        "else:\n    raise SystemExit('made')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def spend_all(pg):
    rate = ModelCostRate(input=0.01, output=0.03)
    pg.configure_plan("default", PlanConfig(max_spend_per_period=1.0, default_cost_rate=rate))
    pg.record_event("ann", cost=1.0)
