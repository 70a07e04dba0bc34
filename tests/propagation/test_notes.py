"""The note that a message carries: bounded, checked, and no more than its producer could say."""

from __future__ import annotations

import json
import logging

import pytest

from paygent import paygent_context, paygent_exempt
from paygent.context import Payer, as_payer
from paygent.propagation import note, noted_payer
from paygent.propagation._notes import METADATA_BYTES_MAX, NOTE_BYTES_MAX


def fields(payer):
    return payer.user_id, payer.session_id, payer.plan, payer.metadata


def test_user_session_plan_and_metadata_arrive():
    """What the producer's context said is what the worker's calls are billed by."""
    with paygent_context("ann", "s1", "pro", {"feature": "mail", "tags": ["a"]}):
        text = note()
    assert fields(noted_payer(text)) == ("ann", "s1", "pro", {"feature": "mail", "tags": ["a"]})


def test_without_a_user_there_is_no_note():
    """Nobody, and a request without a user, leave the message as it is."""
    with as_payer(Payer(None)):
        nobody = note()
    assert (nobody, note(), noted_payer(None)) == (None, None, None)


def test_exemption_does_not_travel():
    """System work does not make its tasks free of charge: the worker says so itself, or they are nobody's."""
    with paygent_exempt():
        assert note() is None


def test_a_bracket_of_the_producer_does_not_travel():
    """What ``wrap`` counts in the producer it cannot count in the worker: the calls there are metered."""
    payer = Payer("ann", metered=True)
    payer.reports_only = True
    with as_payer(payer):
        there = noted_payer(note())
    assert (there.metered, there.exempt, there.reports_only) == (False, False, False)


def test_a_user_who_is_found_out_late_is_found_out_before_the_message_leaves():
    """The worker cannot ask the request who it was: it is asked when the note is written, once."""
    asked = []
    payer = Payer(None, resolve=lambda: asked.append(1) or "ann")
    with as_payer(payer):
        assert [noted_payer(note()).user_id for _ in range(2)] == ["ann", "ann"]
    assert asked == [1]


def test_a_resolver_that_fails_breaks_no_producer(caplog):
    """A fault while the user is looked up is logged; the message leaves without a note."""

    def broken():
        raise RuntimeError("no session")

    with as_payer(Payer(None, resolve=broken)):
        assert note() is None
    assert "could not note who pays" in caplog.text


def test_metadata_that_is_no_json_is_kept_as_text():
    """Like in events: a value that JSON does not know is its text."""
    with paygent_context("ann", metadata={"when": pytest}):
        assert noted_payer(note()).metadata == {"when": str(pytest)}


@pytest.mark.parametrize("kind", ["long", "circular"])
def test_metadata_that_cannot_travel_stays_behind(caplog, kind):
    """Too long or circular metadata is left out with one warning; the user still arrives."""
    metadata = {"text": "x" * METADATA_BYTES_MAX}
    if kind == "circular":
        metadata["text"] = metadata
    with paygent_context("ann", metadata=metadata):
        texts = [note() for _ in range(3)]
    assert [fields(noted_payer(text)) for text in texts] == [("ann", None, None, None)] * 3
    assert len([r for r in caplog.records if "stays behind" in r.message]) == 1


def test_the_longest_ids_fit():
    """Ids at their longest, in the widest characters, with full metadata, make a note that is read."""
    wide = "\N{GRINNING FACE}" * 512
    metadata = {"text": "x" * (METADATA_BYTES_MAX - 12)}
    with paygent_context(wide, wide, wide, metadata):
        assert fields(noted_payer(note())) == (wide, wide, wide, metadata)


WRONG = {
    "no text": b'{"user_id": "ann"}',
    "a dict": {"user_id": "ann"},
    "no json": "ann",
    "a list": '["ann"]',
    "nobody": "{}",
    "empty": '{"user_id": ""}',
    "a number": '{"user_id": 7}',
    "a list of users": '{"user_id": ["ann"]}',
    "long": json.dumps({"user_id": "x" * 513}),
    "surrogate": '{"user_id": "\\ud800"}',
    "session": '{"user_id": "ann", "session_id": {}}',
    "plan": '{"user_id": "ann", "plan": ""}',
    "long plan": json.dumps({"user_id": "ann", "plan": "p" * 513}),
    "plan surrogate": '{"user_id": "ann", "plan": "\\ud800"}',
    "metadata": '{"user_id": "ann", "metadata": [1]}',
    "huge": json.dumps({"user_id": "ann", "metadata": {"x": "y" * NOTE_BYTES_MAX}}),
    "deep": "[" * 20_000,
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG.keys())
def test_a_note_that_cannot_be_right_is_left_out(text, caplog):
    """A worker believes no wrong note: one warning, without what it said, and nobody pays."""
    assert [noted_payer(text) for _ in range(3)] == [None] * 3
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert "ann" not in caplog.text


def test_a_note_sets_nothing_else():
    """Fields that no context has are not taken over, whatever they are called."""
    text = json.dumps({"user_id": "ann", "exempt": True, "metered": True, "reports_only": True, "v": 2})
    payer = noted_payer(text)
    assert (payer.user_id, payer.exempt, payer.metered, payer.reports_only) == ("ann", False, False, False)
