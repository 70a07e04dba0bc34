import json
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paygent.core.events import Event
from paygent.ledger import GateRow
from paygent.wire.events import (
    event_as_json,
    event_from_json,
    gate_as_json,
    gate_from_json,
    posted_event_from_json,
)
from paygent.wire.fields import WireError, each

ID = "5b0e9f0e-6f0a-4c67-9d2a-0d5b8a6f2c11"
# What a client that was released before our own fields sends.
FIELD = {
    "id": ID,
    "user_id": "org/42?x=#é 💥",
    "session_id": "s-1",
    "timestamp": "2026-04-03T10:20:30.123456Z",
    "model": "gpt-4o-mini",
    "input_tokens": 20,
    "output_tokens": 8,
    "total_tokens": 28,
    "tool_calls": ["search"],
    "cost_tokens": 0.000008,
    "cost_tools": 0.02,
    "cost_total": 0.020008,
    "metadata": {"feature": "chat"},
    "source": "auto",
    "description": None,
    "cost_explicit": False,
    "a field of the future": [1, 2],
}

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
optional = st.none() | names
amounts = st.integers(0, 10**12)
periods = st.just("") | st.integers(-(10**16), 10**16).map("p{}".format)
sessions = st.just("") | st.builds("s{}:{}".format, st.integers(0, 10**16), names.filter(bool))
events = st.builds(
    Event,
    id=st.uuids().map(str), user_id=names.filter(bool), timestamp_us=st.integers(0, 4 * 10**15),
    period=periods, session=sessions, session_id=optional, provider=optional, operation=optional,
    model=optional, request_model=optional, response_model=optional,
    input_tokens=amounts, output_tokens=amounts,
    cache_read_input_tokens=amounts, cache_write_input_tokens=amounts,
    reasoning_output_tokens=amounts, cost_tokens_nusd=amounts, cost_tools_nusd=amounts,
    tool_calls=st.lists(names, max_size=3).map(tuple),
    metadata=st.none() | st.dictionaries(names, names, min_size=1, max_size=3),
    source=st.sampled_from(["auto", "manual"]), estimated=st.integers(0, 1), cost_explicit=st.integers(0, 1),
    rate_source=optional, description=optional,
)  # fmt: skip


def changed(**changes):
    return {**FIELD, **changes}


@given(events)
@settings(max_examples=30)
def test_an_event_survives_the_journey(event):
    """What one of our ends writes, the other reads back to the nano-dollar and the microsecond."""
    assert event_from_json(json.loads(json.dumps(event_as_json(event)))) == event


def test_what_clients_in_the_field_send_is_read():
    """The published fields alone make an event; what it does not know is left out."""
    event = event_from_json(FIELD)
    assert (event.id, event.user_id, event.timestamp_us) == (ID, FIELD["user_id"], 1_775_211_630_123_456)
    assert (event.cost_tokens_nusd, event.cost_tools_nusd) == (8_000, 20_000_000)
    assert (event.period, event.session, event.session_id) == ("", "", "s-1")
    assert event.metadata == {"feature": "chat"}


def test_whole_nano_dollars_win_over_a_float():
    """``cost_nusd`` is taken as it is, whatever the float beside it says."""
    event = event_from_json(changed(cost_nusd=7, cost_tools=0.0))
    assert event.cost_nusd == 7


def test_a_cost_in_dollars_is_rounded_to_the_nearest_nano_dollar():
    """A float that stands for a round amount in decimal is that amount."""
    assert event_from_json(changed(cost_total=0.1, cost_tools=0, cost_tokens=0.1)).cost_nusd == 100_000_000


def test_a_moment_without_an_offset_is_utc():
    """A naive timestamp is not in the server's time zone."""
    naive = event_from_json(changed(timestamp="2026-04-03T10:20:30.123456"))
    assert naive.timestamp_us == event_from_json(FIELD).timestamp_us


@pytest.mark.parametrize(
    "field, value",
    [
        ("id", None),
        ("id", "no uuid"),
        ("id", 7),
        ("user_id", None),
        ("user_id", ""),
        ("user_id", 12),
        ("user_id", "x" * 513),
        ("user_id", "\ud800"),
        ("timestamp", None),
        ("timestamp", "yesterday"),
        ("timestamp", 12.5),
        ("timestamp", "9999-99-99T00:00:00Z"),
        ("input_tokens", -1),
        ("output_tokens", 1.5),
        ("input_tokens", True),
        ("input_tokens", 10**30),
        ("cost_total", -0.01),
        ("cost_total", float("nan")),
        ("cost_total", float("inf")),
        ("cost_total", 10**400),
        ("cost_total", "0.1"),
        ("cost_nusd", 0.5),
        ("cost_nusd", -1),
        ("tool_calls", "search"),
        ("tool_calls", [1]),
        ("metadata", [1]),
        ("model", {"name": "gpt-4o"}),
        ("cost_explicit", "yes"),
        ("description", "x" * 10_001),
    ],
)
def test_a_value_that_cannot_be_right_is_refused_by_name(field, value):
    """A field that is missing or impossible is named; it is never taken for zero."""
    with pytest.raises(WireError) as refused:
        event_from_json(changed(**{field: value}))
    assert refused.value.field == field


@pytest.mark.parametrize("value", [None, 1, "text", [FIELD]])
def test_what_is_no_object_is_refused(value):
    """Anything but an object is refused."""
    with pytest.raises(WireError):
        event_from_json(value)


@pytest.mark.parametrize("value", [["gpt-4o"], {"a": 1}, 7, "m" * 513, "\ud800"])
def test_a_name_is_judged_each_time(value):
    """After good names and between them, one that is no text of a fitting length is refused."""
    good = {**FIELD, "provider": "openai", "operation": "chat"}
    for _ in range(2):
        assert event_from_json(good).provider == "openai"
        with pytest.raises(WireError) as refused:
            event_from_json({**good, "provider": value})
        assert refused.value.field == "provider"


def test_the_good_ones_of_a_batch_are_taken():
    """One bad event costs the others nothing, and is told by id and field."""
    taken, rejected = each([FIELD, changed(output_tokens=-1), 7], event_from_json)
    assert [event.id for event in taken] == [ID]
    assert [(row["id"], row["field"]) for row in rejected] == [(ID, "output_tokens"), (None, "")]


def test_ids_are_compared_in_one_form():
    """The same id in capitals is the same id."""
    assert event_from_json(changed(id=ID.upper())).id == ID
    assert event_from_json(changed(id=uuid.UUID(ID).hex)).id == ID


def test_a_decision_survives_the_journey():
    """A row of the audit trail is read back as it was."""
    row = GateRow(ID, "ada", 1_775_211_630_123_456, None, "hard_gate", "total_spend", 1.5, 3.0, 2.0, "m", 1,
                  "Limit reached", {"a": 1}, 3)  # fmt: skip
    assert gate_from_json(json.loads(json.dumps(gate_as_json(row)))) == row


@pytest.mark.parametrize(
    "field, value",
    [("status", "fine"), ("usage_pct", float("nan")), ("limit_value", "1"), ("blocked", 1), ("count", -1)],
)
def test_a_decision_that_cannot_be_right_is_refused_by_name(field, value):
    """A bad field of the audit trail is named."""
    said = {"id": ID, "user_id": "ada", "timestamp": "2026-04-03T10:20:30Z", "status": "soft_gate"}
    with pytest.raises(WireError) as refused:
        gate_from_json({**said, field: value})
    assert refused.value.field == field


def test_a_correction_is_read_back_and_never_posted():
    """A backend's own correction has amounts below zero; from a client it is refused by its source."""
    event = event_from_json(FIELD)
    taken_back = event._replace(
        source="correction",
        input_tokens=-20,
        output_tokens=-8,
        cost_tokens_nusd=-8_000,
        cost_tools_nusd=-20_000_000,
    )
    said = event_as_json(taken_back)
    assert event_from_json(said) == taken_back._replace(tool_calls=("search",))
    with pytest.raises(WireError) as refused:
        posted_event_from_json(said)
    assert refused.value.field == "source"


@pytest.mark.parametrize("source", ["refund", "AUTO", 7])
def test_a_client_meters_by_itself_or_by_hand(source):
    """Any other source is refused where events are posted."""
    with pytest.raises(WireError):
        posted_event_from_json(changed(source=source))


@pytest.mark.parametrize(
    "field, value",
    [
        ("timestamp", "0001-01-01T00:00:00Z"),
        ("timestamp", "9999-12-31T23:59:59Z"),
        ("timestamp", "2200-01-01T00:00:00Z"),
        ("period", "next"),
        ("period", "p" + "9" * 18),
        ("session", "mine"),
        ("session", "s1:"),
    ],
)
def test_windows_and_moments_are_such(field, value):
    """A moment that no call has, and a window that nobody could have named so, are refused by name."""
    with pytest.raises(WireError) as refused:
        event_from_json(changed(**{field: value}))
    assert refused.value.field == field


@pytest.mark.parametrize("fraction", ["1", "12", "123", "1234", "123456", "123456789"])
def test_a_fraction_of_a_second_has_any_number_of_digits(fraction):
    """Other clients' clocks write milliseconds or nanoseconds; what is beyond microseconds is cut off."""
    moment = event_from_json(changed(timestamp=f"2026-04-03T10:20:30.{fraction}Z")).timestamp_us
    assert moment == 1_775_211_630_000_000 + int(f"{fraction:0<6.6}")


def test_a_tag_that_nothing_can_store_is_replaced():
    """An event is not lost for its tag: half of a surrogate pair in it becomes a question mark."""
    event = event_from_json(changed(metadata={"feature": "chat \ud800", "other": 1}))
    assert event.metadata == {"feature": "chat ?", "other": 1}
