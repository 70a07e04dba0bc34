from types import SimpleNamespace

import pytest

from paygent.core.usage import Usage
from paygent.instrumentation.readers import ChatReader, MessageReader, ResponseReader
from paygent.instrumentation.streams import CountedIterator, Tally


class Bracket:
    """The bracket of one call, as far as a stream uses it."""

    def __init__(self):
        self.settled = []

    def finish(self, usage, model=None, tools=()):
        self.settled.append(("reported", usage, model, list(tools)))

    def finish_estimated(self, partial, output_bytes, model=None, tools=()):
        self.settled.append(("estimated", output_bytes, model, list(tools)))

    def fail(self, error):
        self.settled.append(("failed", error))


def chunk(content, tool_calls=None, usage=None):
    delta = SimpleNamespace(content=content, tool_calls=tool_calls)
    return SimpleNamespace(choices=[SimpleNamespace(delta=delta)], model="gpt-4o", usage=usage)


def read(events, reader=ChatReader, each=lambda event: None, until=None):
    """Read *events* through the counting iterator; returns how the call was settled."""
    call, tally = Bracket(), None
    inner = iter(events)
    tally = Tally(call, reader())
    counted = CountedIterator(inner, tally)
    for number, event in enumerate(counted):
        each(event)
        if number == until:
            tally.leave()
            break
    return call.settled


def masked(event):
    event.choices[0].delta.content = ""


@pytest.mark.parametrize("length", [1, 2, 200])
def test_every_chunk_counts(length):
    """The first chunk, which names the model, and those that carry nothing but text are all counted."""
    assert read([chunk("four")] * length) == [("estimated", 4 * length, "gpt-4o", [])]


def test_what_the_caller_does_to_a_chunk_changes_nothing():
    """A caller that masks or clears what it was given pays for what the provider sent."""
    assert read([chunk("four") for _ in range(10)], each=masked) == [("estimated", 40, "gpt-4o", [])]


def test_a_stream_left_early_counts_what_was_seen():
    """Of a stream that the caller leaves, the chunks that he was given are counted."""
    assert read([chunk("four")] * 90, until=69) == [("estimated", 280, "gpt-4o", [])]


def test_bytes_are_those_of_the_text():
    """Text that is not ASCII counts by its bytes."""
    assert read([chunk("é💥")] * 70) == [("estimated", 70 * 6, "gpt-4o", [])]


def test_a_report_of_nothing_is_no_report():
    """Where a server reports zeros for an answer that was seen, what was seen counts."""
    nothing = SimpleNamespace(prompt_tokens=0, completion_tokens=0, total_tokens=0)
    last = SimpleNamespace(choices=[], model="gpt-4o", usage=nothing)
    assert read([*[chunk("four")] * 5, last]) == [("estimated", 20, "gpt-4o", [])]


def test_a_report_wins_over_what_was_seen():
    """The provider's own usage is posted, whatever the estimate would be."""
    usage = SimpleNamespace(prompt_tokens=7, completion_tokens=5, total_tokens=12)
    last = SimpleNamespace(choices=[], model="gpt-4o", usage=usage)
    assert read([*[chunk("four")] * 5, last]) == [("reported", Usage(7, 5), "gpt-4o", [])]


def test_deltas_of_the_other_apis_count_too():
    """Text deltas of the Responses API and of Anthropic's messages are counted as those of chat."""
    delta = SimpleNamespace(type="response.output_text.delta", delta="four")
    assert read([delta] * 70, ResponseReader) == [("estimated", 280, None, [])]
    block = SimpleNamespace(type="content_block_delta", delta=SimpleNamespace(type="text_delta", text="four"))
    assert read([block] * 70, MessageReader) == [("estimated", 280, None, [])]


@pytest.mark.parametrize("event", [None, 7, SimpleNamespace(), {"choices": None}, SimpleNamespace(choices=3)])
def test_an_event_of_any_shape_harms_nobody(event):
    """What no SDK declares is passed on, and the rest of the stream is counted."""
    assert read([chunk("four"), chunk("four"), event, chunk("four")])[0][:2] == ("estimated", 12)
