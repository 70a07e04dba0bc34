"""Which configured model a provider's model name means."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from paygent.core.names import candidates, match

SAME_MODEL = [
    ("gpt-4o", "gpt-4o"),
    (" GPT-4o ", "gpt-4o"),
    ("gpt-4o-2024-08-06", "gpt-4o"),
    ("gpt-3.5-turbo-0125", "gpt-3.5-turbo"),
    ("gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
    ("o1-preview", "o1"),
    ("o1-preview-2024-09-12", "o1"),
    ("claude-sonnet-4-20250514", "claude-sonnet-4"),
    ("claude-3-5-sonnet-latest", "claude-3-5-sonnet"),
    ("claude-3-5-sonnet-20241022", "claude-3-5-sonnet-latest"),
    ("openai/gpt-4o", "gpt-4o"),
    ("openai:gpt-4o", "gpt-4o"),
    ("azure/gpt-4o-2024-08-06", "gpt-4o"),
    ("openrouter/anthropic/claude-sonnet-4", "claude-sonnet-4"),
    ("bedrock/us-east-1/anthropic.claude-3-haiku-20240307-v1:0", "claude-3-haiku"),
    ("us.anthropic.claude-sonnet-4-20250514-v1:0", "claude-sonnet-4-20250514"),
    ("global.anthropic.claude-sonnet-4-20250514-v1:0", "claude-sonnet-4"),
    ("anthropic.claude-3-5-sonnet-20241022-v2:0:200k", "claude-3-5-sonnet"),
    (
        "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-sonnet-4-20250514-v1:0",
        "claude-sonnet-4",
    ),
    ("arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-pro-v1:0", "nova-pro"),
    ("claude-sonnet-4@20250514", "claude-sonnet-4-20250514"),
    ("publishers/anthropic/models/claude-sonnet-4@20250514", "claude-sonnet-4"),
    ("projects/p/locations/us-east5/publishers/anthropic/models/claude-sonnet-4", "claude-sonnet-4"),
    ("models/gemini-2.5-flash", "gemini-2.5-flash"),
    ("gpt-4o", "openai/gpt-4o"),
    ("gpt-4o-2024-08-06", "OpenAI/GPT-4o"),
    ("claude-sonnet-4-20250514", "us.anthropic.claude-sonnet-4-20250514-v1:0"),
    ("ft:gpt-4o-mini-2024-07-18:acme:support:AbC123", "ft:gpt-4o-mini-2024-07-18"),
    ("ft:gpt-4o-mini-2024-07-18:acme::AbC123", "ft:gpt-4o-mini"),
    ("openai/ft:gpt-4o-mini-2024-07-18:acme::AbC123", "ft:gpt-4o-mini"),
    ("ft:gpt-4o:acme::AbC123:ckpt-step-100", "ft:gpt-4o"),
]
OTHER_MODEL = [
    ("gpt-4o-mini", "gpt-4o"),
    ("gpt-4o-audio-preview", "gpt-4o"),
    ("gpt-4o-audio-preview-2024-12-17", "gpt-4o"),
    ("gpt-4o-realtime-preview", "gpt-4o"),
    ("gpt-4o-transcribe", "gpt-4o"),
    ("gpt-4o-new-variant", "gpt-4o"),
    ("gpt-4o", "gpt-4o-mini"),
    ("gpt-4o", "gpt-4o-2024-08-06"),
    ("gpt-4o-2024-05-13", "gpt-4o-2024-08-06"),
    ("claude-3-5-sonnet-20240620", "claude-3-5-sonnet-20241022"),
    ("us.anthropic.claude-3-5-sonnet-20240620-v1:0", "anthropic.claude-3-5-sonnet-20241022-v2:0"),
    ("gpt-4-1106-preview", "gpt-4"),
    ("gpt-4-0125-preview", "gpt-4"),
    ("ft:gpt-4o-mini-2024-07-18:acme::AbC123", "gpt-4o-mini"),
    ("ft:gpt-4o-mini-2024-07-18:acme::AbC123", "gpt-4o-mini-2024-07-18"),
    ("ft:gpt-4o-mini-2024-07-18:acme::AbC123", "ft:gpt-4o"),
    ("gpt-4o", "ft:gpt-4o"),
    ("openai/gpt-4o:free", "gpt-4o"),
    ("openrouter/anthropic/claude-sonnet-4:nitro", "claude-sonnet-4"),
    ("mistral-large-2407", "mistral-large"),
    ("text-embedding-3-large", "text-embedding-3-small"),
    ("", "gpt-4o"),
]


@pytest.mark.parametrize("model, known", SAME_MODEL)
def test_the_same_model_by_another_name_matches(model, known):
    """A date, an address or an alias around a name leaves the model the same."""
    assert match(model, [known]) == known


@pytest.mark.parametrize("model, known", OTHER_MODEL)
def test_another_model_of_like_name_does_not_match(model, known):
    """A common beginning is not enough, two snapshots are two models, and a fine-tuned model is its own."""
    assert match(model, [known]) is None


def test_the_exact_name_comes_first():
    """A plan that lists both the snapshot and the model prices the snapshot by its own entry."""
    known = {"gpt-4o", "gpt-4o-2024-05-13", "openai/gpt-4o"}

    assert match("gpt-4o-2024-05-13", known) == "gpt-4o-2024-05-13"


def test_the_most_specific_entry_comes_next():
    """The snapshot without its address is closer than the model without its date."""
    assert match("openai/gpt-4o-2024-05-13", {"gpt-4o", "gpt-4o-2024-05-13"}) == "gpt-4o-2024-05-13"


def test_the_same_address_comes_before_another():
    """Of two entries for one model, the one with the model's own address is meant, in any order."""
    assert match("azure/gpt-4o-2024-08-06", ["openai/gpt-4o", "azure/gpt-4o"]) == "azure/gpt-4o"
    assert match("openai/gpt-4o-2024-08-06", ["azure/gpt-4o", "openai/gpt-4o"]) == "openai/gpt-4o"


def test_the_choice_does_not_depend_on_the_order():
    """Entries that mean the same are told apart by their names alone: every process picks the same."""
    known = ["azure/gpt-4o", "openai/gpt-4o", "openrouter/openai/gpt-4o"]

    assert match("gpt-4o", known) == match("gpt-4o", known[::-1]) == "azure/gpt-4o"


def test_nothing_is_known():
    """Without known names there is no match."""
    assert match("gpt-4o", ()) is None


@given(st.text(max_size=80), st.lists(st.text(max_size=80), max_size=4))
@example("ft:", ["ft:"])
@example("/", [":", ""])
def test_any_text_is_an_answer_and_a_known_one(model, known):
    """Whatever the names, the answer is one of the known names, or none, and no exception."""
    assert match(model, known) in {*known, None}


@given(st.text(max_size=80))
def test_a_listed_name_always_matches_itself(model):
    """A name that is listed is found, whatever it looks like."""
    assert match(model, ["gpt-4o", model]) == model


def test_candidates_go_from_the_given_name_to_the_plainest():
    """The order of the spellings is the order of preference."""
    assert candidates("Bedrock/us.anthropic.claude-sonnet-4-20250514-v1:0") == (
        "Bedrock/us.anthropic.claude-sonnet-4-20250514-v1:0",
        "bedrock/us.anthropic.claude-sonnet-4-20250514-v1:0",
        "us.anthropic.claude-sonnet-4-20250514-v1:0",
        "anthropic.claude-sonnet-4-20250514-v1:0",
        "claude-sonnet-4-20250514-v1:0",
        "claude-sonnet-4-20250514",
        "claude-sonnet-4",
    )


def test_candidates_of_a_fine_tuned_model_never_reach_its_base():
    """Every spelling of a fine-tuned model says that it is fine-tuned."""
    assert all(name.startswith("ft:") for name in candidates("ft:gpt-4o-2024-08-06:acme::AbC123"))
