import json
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paygent.core import events
from paygent.core.events import Event, decode, encode, posts, to_model

TEXT = st.text(max_size=20)
PLAIN = st.from_regex(r"[a-z0-9:-]{0,20}", fullmatch=True)  # ids and periods are of our own making
MAYBE = st.none() | TEXT
COUNT = st.integers(0, 2**62)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
EVENTS = st.builds(
    Event,
    PLAIN, TEXT, COUNT, PLAIN, TEXT, MAYBE, MAYBE, MAYBE, MAYBE, MAYBE, MAYBE, COUNT, COUNT, COUNT, COUNT,
    COUNT, COUNT, COUNT,
    st.lists(TEXT, max_size=3).map(tuple), st.none() | st.dictionaries(TEXT, JSON, max_size=3),
    st.sampled_from(["auto", "manual"]), st.integers(0, 1), st.integers(0, 1), MAYBE, MAYBE,
)  # fmt: skip
EVENT = Event(
    "id", "ada", 1_767_225_600_000_000, "p1", "s1", "chat", "openai", "chat", "m", "m", "m-2", 10, 5, 4, 3, 2,
    1_500_000_000, 20_000_000, ("search",), {"a": 1}, "auto", 1, 0, "plan", None,
)  # fmt: skip


@given(event=EVENTS)
def test_an_event_survives_its_line(event):
    """Whatever an event holds is read back as it was, from one line of ASCII."""
    line = encode(event)
    assert line.isascii()
    assert "\n" not in line
    assert decode(line) == event


def test_a_lone_surrogate_survives():
    """Text that no encoding can store is kept in the line all the same."""
    event = EVENT._replace(description="\ud800")
    assert decode(encode(event)) == event


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object(), b"bytes"])
def test_metadata_that_is_not_json_loses_no_event(value):
    """Metadata that JSON does not know is written in some form rather than that the event is lost."""
    assert decode(encode(EVENT._replace(metadata={"a": value})))._replace(metadata=None) == EVENT._replace(
        metadata=None
    )


@pytest.mark.parametrize("line", ["", "{}", "[]", "[1,2]", "null", "nonsense", json.dumps([*list(EVENT), 1])])
def test_what_is_no_event_is_refused(line):
    """A line that is not such a row is a ValueError."""
    with pytest.raises(ValueError):
        decode(line)


def test_an_event_posts_to_its_windows():
    """Cost counts in period, session and model; tokens count for the model."""
    assert posts(EVENT) == [
        ("total_spend", "p1", 1_520_000_000),
        ("session_spend", "s1", 1_520_000_000),
        ("model_limit:m", "p1", 15),
        ("model_cost:m", "p1", 1_520_000_000),
    ]
    assert [scope for scope, _, _ in posts(EVENT._replace(model=None))] == ["total_spend", "session_spend"]


def test_the_public_model_is_in_dollars():
    """The public event names cost in dollars, the sum of tokens and tools, and the moment in UTC."""
    model = to_model(EVENT, synced=True)
    assert (model.cost_tokens, model.cost_tools, model.cost_total, model.cost_nusd) == (
        1.5,
        0.02,
        1.52,
        1_520_000_000,
    )
    assert model.timestamp == datetime(2026, 1, 1, tzinfo=timezone.utc)
    assert (model.total_tokens, model.tool_calls, model.estimated, model.synced) == (
        15,
        ["search"],
        True,
        True,
    )


@pytest.mark.parametrize(
    ("position", "field"),
    [
        (events.ID, "id"),
        (events.INPUT_TOKENS, "input_tokens"),
        (events.OUTPUT_TOKENS, "output_tokens"),
        (events.COST_TOKENS, "cost_tokens_nusd"),
        (events.COST_TOOLS, "cost_tools_nusd"),
    ],
)
def test_a_position_is_that_of_its_field(position, field):
    """What is read of an event by its position is what the name says."""
    assert Event._fields[position] == field
