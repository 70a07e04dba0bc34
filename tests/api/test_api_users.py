"""Who is a user, who is nobody, and what a user id may be."""

from __future__ import annotations

import enum
import uuid
from decimal import Decimal

import pytest
from api_world import answer, ask, events, openai_client, plan

from paygent import Paygent, PaygentLimitExceeded, paygent_context

ODD_IDS = {
    "nul": "a\x00b",
    "long": "x" * 512,
    "emoji": "👩‍🚀" * 10,
    "quotes": "'; DROP TABLE events; --",
    "spaces": "  ann  ",
    "slash": "a/b?c=%2F",
}


@pytest.mark.parametrize("ledger", ["memory", "sqlite"])
@pytest.mark.parametrize("user_id", ODD_IDS.values(), ids=ODD_IDS.keys())
def test_any_text_is_a_user(tmp_path, ledger, user_id):
    """Any non-empty text up to 512 characters is stored and found again as it is."""
    url = "memory://" if ledger == "memory" else f"sqlite:///{tmp_path}/p.db"
    pg = Paygent.init(ledger=url)
    pg.configure_plan("default", plan(max_spend_per_period=1.0))
    with paygent_context(user_id):
        ask(openai_client())
    assert [event.user_id for event in events(pg, user_id)] == [user_id]
    pg.reset_user(user_id)
    assert pg.get_usage(user_id).period_cost == 0.04
    assert pg.check_guard(user_id).status == "ok"


class Plain(str, enum.Enum):
    ANN = "ann"


@pytest.mark.parametrize(
    "given, text",
    [
        (7, "7"),
        (Decimal(7), "7"),
        (1.5, "1.5"),
        (uuid.UUID(int=7), str(uuid.UUID(int=7))),
        (Plain.ANN, "ann"),
    ],
    ids=["int", "decimal", "float", "uuid", "enum"],
)
def test_a_number_is_taken_as_its_text(pg, given, text):
    """Primary keys of any kind are users, the same by every way in."""
    with paygent_context(given):
        ask(openai_client())
    pg.wrap(answer, user_id=given, model="gpt-4o")
    pg.record_event(given, cost=0)
    assert [event.user_id for event in events(pg)] == [text] * 3
    assert pg.get_usage(given).period_tokens_total == 4000
    assert pg.get_user_state(given).user_id == text
    assert pg.check_guard(given).status == "ok"


BAD_IDS = [
    pytest.param("x" * 513, id="513 characters"),
    pytest.param("\ud800", id="lone surrogate"),
    pytest.param("\0" * 400, id="400 NULs"),
    pytest.param("\u2400" * 351, id="351 pictures of NUL"),
]


@pytest.mark.parametrize("user_id", BAD_IDS)
@pytest.mark.parametrize("way", ["context", "wrap", "record_event", "check_guard", "track", "assign_plan"])
def test_an_id_that_cannot_be_stored_is_a_value_error(pg, user_id, way):
    """Too long or not encodable: refused where it enters, with the field named."""
    ways = {
        "context": lambda: paygent_context(user_id).__enter__(),
        "wrap": lambda: pg.wrap(answer, user_id=user_id),
        "record_event": lambda: pg.record_event(user_id, cost=1),
        "check_guard": lambda: pg.check_guard(user_id),
        "track": lambda: pg.track(user_id=user_id),
        "assign_plan": lambda: pg.assign_plan(user_id, "default"),
    }
    with pytest.raises(ValueError, match="user_id"):
        ways[way]()


@pytest.mark.parametrize("session_id", BAD_IDS)
def test_a_session_id_follows_the_same_rules(session_id):
    """Sessions are named like users."""
    with pytest.raises(ValueError, match="session_id"), paygent_context("ann", session_id=session_id):
        pass


@pytest.mark.parametrize(
    "user_id", [["ann"], {"id": 1}, True, object()], ids=lambda value: type(value).__name__
)
def test_what_is_neither_text_nor_number_is_no_user(user_id):
    """A user object handed in by mistake is found at once."""
    with pytest.raises(TypeError, match="user_id must be text or a number"), paygent_context(user_id):
        pass


def test_metadata_must_be_a_dict():
    """A list of metadata is a mistake, found where it enters."""
    with pytest.raises(TypeError, match="metadata must be a dict"), paygent_context("ann", metadata=["x"]):
        pass


@pytest.mark.parametrize("nobody", [None, ""], ids=["none", "empty"])
def test_nobody_passes_unmetered_with_one_warning(pg, log, nobody):
    """Without a user the call goes through, is not counted, and that is said once."""
    with paygent_context(nobody):
        ask(openai_client())
        ask(openai_client())
    assert [r.message for r in log.records if "passes unmetered" in r.message] == [
        "an LLM call was made with a user_id that is None or empty: it passes unmetered"
    ]
    assert events(pg) == []


def test_a_call_outside_of_a_context_has_a_warning_of_its_own(pg, log):
    """Where there is no context that is said, once, whatever was said of users who are nobody."""
    with paygent_context(None):
        ask(openai_client())
    log.clear()
    ask(openai_client())
    ask(openai_client())
    assert [r.message for r in log.records if "passes unmetered" in r.message] == [
        "an LLM call was made outside of paygent_context: it passes unmetered"
    ]


def _in_context(user_id):
    with paygent_context(user_id):
        ask(openai_client())


@pytest.mark.parametrize("where", ["outside", "none", "empty", "wrap"])
def test_nobody_can_be_blocked(where):
    """``init(unattributed="block")`` refuses calls that belong to nobody, and says so."""
    pg = Paygent.init(ledger="memory://", unattributed="block")
    ways = {
        "outside": lambda: ask(openai_client()),
        "none": lambda: _in_context(None),
        "empty": lambda: _in_context(""),
        "wrap": lambda: pg.wrap(answer, user_id=""),
    }
    with pytest.raises(PaygentLimitExceeded, match="belongs to no user") as caught:
        ways[where]()
    assert caught.value.refusal.code == "no_user"


@pytest.mark.parametrize(
    "method", ["get_usage", "check_guard", "get_user_state", "start_session", "reset_user"]
)
def test_a_question_about_nobody_is_a_value_error(pg, method):
    """Asking for the empty user is a mistake."""
    with pytest.raises(ValueError, match="user_id must not be empty"):
        getattr(pg, method)("")


def test_resetting_a_user_keeps_what_was_used(pg):
    """``reset_user`` drops the cache; the ledger still knows."""
    pg.record_event("ann", cost=1.5)
    pg.reset_user("ann")
    assert pg.get_usage("ann").period_cost == 1.5


def test_resetting_a_user_nobody_knows_does_nothing(pg):
    """There is nothing to drop."""
    pg.reset_user("nobody")
    assert pg.get_usage("nobody").period_cost == 0.0
