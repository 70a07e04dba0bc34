import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paygent.core.windows import Window
from paygent.ledger import Account, LeaseReply, LeaseRequest, PlanRow, Session
from paygent.wire.fields import WireError
from paygent.wire.leases import reply_as_json, reply_from_json, request_as_json, request_from_json

CONFIG = '{"max_spend_per_period": 5.0}'
amounts = st.integers(-(1 << 50), 1 << 50)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
buckets = st.dictionaries(st.tuples(names, names), amounts, max_size=3)
scopes = st.dictionaries(names, amounts, max_size=3)
windows = st.builds(Window, names, st.integers(0, 1 << 50), st.integers(0, 1 << 50))
requests = st.builds(
    LeaseRequest, names, names, st.integers(0, 1 << 55), st.none() | names, st.booleans(), st.none() | names,
    buckets, buckets, scopes, scopes,
)  # fmt: skip


@st.composite
def replies(draw):
    """Answers as the shared operation makes them."""
    config = draw(st.sampled_from([None, CONFIG]))
    own = config if draw(st.booleans()) else None
    period = draw(st.none() | st.tuples(amounts, amounts))
    denied = draw(st.none() | names)
    return LeaseReply(
        account=Account(
            draw(names),
            draw(st.none() | names),
            own,
            period,
            draw(st.booleans()),
            paygent_user_id=draw(st.none() | names),
        ),
        plan=PlanRow(draw(names), draw(names), config),
        period=draw(windows),
        session=draw(st.none() | st.builds(Session, names, windows)),
        posted=draw(buckets),
        lease=draw(buckets),
        others=draw(buckets),
        sharers=draw(st.integers(1, 99)),
        denied=denied,
        busy=denied is not None and draw(st.booleans()),
        contended=draw(st.booleans()),
        now_us=draw(st.integers(0, 1 << 50)),
    )


def journey(value):
    return json.loads(json.dumps(value))


@settings(max_examples=30)
@given(requests)
def test_an_operation_survives_the_journey(request):
    """A lease operation is read back as it was written, amount by amount."""
    assert request_from_json(journey(request_as_json(request))) == request


@settings(max_examples=30)
@given(replies())
def test_an_answer_survives_the_journey(reply):
    """The answer to a lease operation is read back as it was written."""
    assert reply_from_json(journey(reply_as_json(reply))) == reply


def test_an_answer_without_the_backends_own_id_is_read():
    """Earlier backends do not say it."""
    reply = LeaseReply(
        Account("ada", paygent_user_id="id"), PlanRow("pro", "v1", CONFIG), Window("p", 0, 1), None, {}
    )
    said = journey(reply_as_json(reply))
    del said["account"]["paygent_user_id"]
    assert reply_from_json(said).account == Account("ada")


def test_a_plan_that_is_known_is_not_sent_again():
    """Where the caller names the version that binds, its content stays at home and is put back on arrival."""
    reply = LeaseReply(Account("ada"), PlanRow("pro", "v1", CONFIG), Window("p", 0, 1), None, {})
    said = journey(reply_as_json(reply, "v1"))
    assert said["plan_config"] is None
    assert reply_from_json(said, CONFIG) == reply


@pytest.mark.parametrize(
    "field, value",
    [
        ("user_id", ""),
        ("user_id", "\0" * 400),
        ("session_id", "\u2400" * 400),
        ("lease_id", None),
        ("lease_id", "\0" * 51),
        ("seq", -1),
        ("seq", 1.0),
        ("keep", {"total_spend": 1}),
        ("keep", [["total_spend", "p", 1.5]]),
        ("held", [["total_spend", "p"]]),
        ("held", [["total_spend", "p", 1 << 62]]),
        ("need", [1]),
        ("need", {"total_spend": "1"}),
        ("want", {"x" * 600: 1}),
        ("begin_session", "yes"),
        ("events", {}),
        ("events", [{"id": "no"}]),
    ],
)
def test_an_operation_that_cannot_be_right_is_refused_by_name(field, value):
    """A bad field of an operation is named."""
    said = {**request_as_json(LeaseRequest("ada", "l", 1)), field: value}
    with pytest.raises(WireError) as refused:
        request_from_json(said)
    assert refused.value.field.startswith(field)


@pytest.mark.parametrize("said", [None, [], {}, {"user_id": "ada"}, "<html>", 7])
def test_garbage_is_no_answer(said):
    """An answer that is none is found out, and never taken for a grant."""
    with pytest.raises(WireError):
        reply_from_json(said)


def test_a_plan_is_never_taken_for_none():
    """An answer that has a plan and leaves out its limits is no answer: unknown is not unlimited."""
    reply = LeaseReply(Account("ada"), PlanRow("pro", "v1", CONFIG), Window("p", 0, 1), None, {})
    said = reply_as_json(reply, "v1")
    with pytest.raises(WireError):
        reply_from_json(journey(said))
