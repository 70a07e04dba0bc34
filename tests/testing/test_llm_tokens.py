from __future__ import annotations

import json

import pytest
from llm_shells import HELLO, SEARCH_TOOL

from paygent.testing.llm_server._words import count_tokens


class TestTokens:
    def test_counts_what_was_read_and_written(self, shell):
        """Usage is the words and marks of the prompt and of the text."""
        answer = shell.openai().chat.completions.create(model="gpt-4o", messages=HELLO)
        assert answer.usage.prompt_tokens == 5
        assert answer.usage.completion_tokens == count_tokens(answer.choices[0].message.content)

    def test_the_same_request_gets_the_same_text(self, shell):
        """Text is deterministic."""
        ask = shell.openai().chat.completions.create
        texts = {ask(model="gpt-4o", messages=HELLO).choices[0].message.content for _ in range(2)}
        assert len(texts) == 1

    @pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
    def test_chat_stops_at_the_maximum(self, shell, name):
        """A maximum below the text's length cuts it, and the finish reason says so."""
        answer = shell.openai().chat.completions.create(model="gpt-4o", messages=HELLO, **{name: 4})
        assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (4, "length")

    def test_messages_stop_at_the_maximum(self, shell):
        """Anthropic's stop reason says that the maximum ended the text."""
        answer = shell.anthropic().messages.create(model="claude-sonnet-5-5", max_tokens=4, messages=HELLO)
        assert (answer.usage.output_tokens, answer.stop_reason) == (4, "max_tokens")

    def test_several_choices_are_all_billed(self, shell):
        """With n=3, three texts are written and billed."""
        answer = shell.openai().chat.completions.create(model="gpt-4o", messages=HELLO, n=3, max_tokens=4)
        assert (len(answer.choices), answer.usage.completion_tokens) == (3, 12)

    def test_openai_cached_tokens_are_inside_the_prompt(self, shell):
        """Cached tokens do not change OpenAI's prompt tokens."""
        headers = {"x-llm-cached-tokens": "3"}
        answer = shell.openai().chat.completions.create(model="gpt-4o", messages=HELLO, extra_headers=headers)
        assert (answer.usage.prompt_tokens, answer.usage.prompt_tokens_details.cached_tokens) == (5, 3)

    def test_anthropic_cached_tokens_are_outside_the_input(self, shell):
        """Cache reads and writes are taken out of Anthropic's input tokens."""
        headers = {"x-llm-cached-tokens": "3", "x-llm-cache-write-tokens": "1"}
        usage = (
            shell.anthropic()
            .messages.create(model="claude-sonnet-5-5", max_tokens=9, messages=HELLO, extra_headers=headers)
            .usage
        )
        counts = (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens)
        assert counts == (1, 3, 1)

    def test_count_tokens_agrees_with_the_bill(self, shell):
        """The free counter says what the message then costs."""
        client = shell.anthropic()
        counted = client.messages.count_tokens(model="claude-sonnet-5-5", messages=HELLO).input_tokens
        billed = client.messages.create(model="claude-sonnet-5-5", max_tokens=9, messages=HELLO).usage
        assert counted == billed.input_tokens

    def test_a_search_is_billed_apart(self, shell):
        """A web search shows in Anthropic's server tool usage."""
        answer = shell.anthropic().messages.create(
            model="claude-sonnet-5-5",
            max_tokens=99,
            messages=[{"role": "user", "content": "Do a web search, please"}],
            tools=[SEARCH_TOOL],
        )
        assert answer.usage.to_dict()["server_tool_use"]["web_search_requests"] == 1

    def test_the_usage_block_can_be_given(self, shell):
        """A raw usage block in a header is answered as it is, and is what counts as generated."""
        raw = {"prompt_tokens": 1000, "completion_tokens": 7, "total_tokens": 1007, "new_field": 1}
        headers = {"x-llm-usage-json": json.dumps(raw)}
        answer = shell.openai().chat.completions.create(model="gpt-4o", messages=HELLO, extra_headers=headers)
        assert answer.usage.to_dict() == raw
        assert shell.server.generated["gpt-4o"][1:] == (1000, 7)

    def test_usage_can_be_left_out(self, shell):
        """A null usage block stands for servers that report none."""
        headers = {"x-llm-usage-json": "null"}
        answer = shell.openai().chat.completions.create(model="gpt-4o", messages=HELLO, extra_headers=headers)
        assert answer.usage is None

    def test_totals_are_kept_per_model(self, shell):
        """The totals are the sum of the usage blocks, by model."""
        client = shell.openai()
        usages = [
            client.chat.completions.create(model=model, messages=HELLO).usage for model in ("a", "b", "a")
        ]
        totals = shell.server.generated
        assert totals["a"] == (2, 10, usages[0].completion_tokens + usages[2].completion_tokens)
        assert totals["b"].requests == 1
