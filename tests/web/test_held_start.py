"""How far a response has come, and how a refusal is said from there: the rules that the drivers share."""

import pytest
from refusals_seen import refused

from paygent.web.held_start import HeldStart, Step, is_event_stream, kept, swallowed

EVENTS = (200, [("Content-Type", "text/event-stream; charset=utf-8")])
TEXT = (200, [("content-type", "text/plain")])
REFUSAL = refused()


@pytest.fixture
def said():
    return HeldStart(lambda start: start[1])


def test_a_start_of_unknown_length_is_held_and_released_once(said):
    """What is held is given back once, and the response has begun with it."""
    assert (said.begin(EVENTS, None, False), said.held, said.sent) == (Step.HOLD, EVENTS, None)
    assert (said.release(), said.sent) == (EVENTS, EVENTS)
    assert (said.release(), said.sent) == (None, EVENTS)


def test_a_start_of_known_length_is_sent_at_once(said):
    """No language model writes a response whose length is known: nothing is held, and nothing to release."""
    assert (said.begin(TEXT, None, True), said.release(), said.sent) == (Step.SEND, None, TEXT)


def test_what_was_made_of_a_refusal_is_answered_with_it(said):
    """A response that hides a refusal never begins, whether its length is known or not."""
    assert said.begin(TEXT, REFUSAL, True) is Step.ANSWER
    assert (said.sent, said.refuse()) == (None, Step.ANSWER)


def test_what_was_said_is_not_taken_back(said):
    """Once a start is sent, another one goes to the server as it is: it knows best what to make of that."""
    said.begin(TEXT, None, True)
    assert said.begin(EVENTS, REFUSAL, False) is Step.SEND


@pytest.mark.parametrize(
    ("start", "is_sent", "is_complete", "step"),
    [
        (None, False, False, Step.ANSWER),
        (EVENTS, False, False, Step.ANSWER),
        (EVENTS, True, False, Step.EVENT),
        (TEXT, True, False, Step.CUT),
        (EVENTS, True, True, Step.LATE),
        (TEXT, True, True, Step.LATE),
    ],
)
def test_how_a_refusal_is_said(start, is_sent, is_complete, step, said):
    """With a status of its own, else as the last event, else by cutting; not at all after the end."""
    if start is not None:
        said.begin(start, None, False)
    if is_sent:
        said.release()
    said.is_complete = is_complete
    assert said.refuse() is step


@pytest.mark.parametrize(
    ("more", "takes_events"),
    [
        ({}, True),
        ({"X-Accel-Buffering": "no"}, True),
        ({"Content-Encoding": "gzip"}, False),
        ({"Content-Length": "400"}, False),
        ({"Content-Type": "application/json"}, False),
    ],
)
def test_where_an_event_can_be_added(more, takes_events):
    """Only to an event stream that is neither compressed nor of a stated length."""
    assert is_event_stream(({"Content-Type": "Text/Event-Stream"} | more).items()) is takes_events


def test_the_answer_keeps_what_is_true_of_the_request(said):
    """Cookies, CORS and security headers stay; what was said of the body goes, and the answer's own win."""
    answer = [("content-type", "application/json"), ("Vary", "Accept"), ("x-should-retry", "false")]
    dropped = [
        ("Content-Type", "text/event-stream"),
        ("Cache-Control", "public"),
        ("ETag", "1"),
        ("X-Should-Retry", "true"),
        ("Vary", "Origin"),
        ("Set-Cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("Access-Control-Allow-Origin", "*"),
    ]
    assert kept(answer, dropped) == dropped[4:]
    assert said.kept(answer) == []
    said.begin((200, dropped), None, False)
    assert said.kept(answer) == dropped[4:]


@pytest.mark.parametrize(("status", "found"), [(500, REFUSAL), (200, None), (429, None), (502, None)])
def test_only_a_500_is_taken_for_a_refusal(status, found):
    """A catch-all answers 500; any other status is an answer that somebody meant."""
    assert swallowed(status, REFUSAL) is found
    assert swallowed(status, None) is None
