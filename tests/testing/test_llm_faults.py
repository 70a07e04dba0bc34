from __future__ import annotations

import time

import anthropic
import openai
import pytest
from llm_shells import HELLO

from paygent.testing.transport import http_flavour


class TestFaults:
    def test_a_failure_with_retry_after(self, shell):
        """A status asked for is answered, with its Retry-After, and bills nothing."""
        headers = {"x-llm-status": "429", "x-llm-retry-after": "7"}
        with pytest.raises(openai.RateLimitError) as caught:
            shell.openai().chat.completions.create(model="gpt-4o", messages=HELLO, extra_headers=headers)
        assert caught.value.response.headers["retry-after"] == "7"
        assert shell.server.generated == {}

    def test_an_anthropic_failure_has_its_own_shape(self, shell):
        """Anthropic's errors are typed the way its SDK reads them."""
        with pytest.raises(anthropic.APIStatusError) as caught:
            shell.anthropic().messages.create(
                model="m", max_tokens=9, messages=HELLO, extra_headers={"x-llm-status": "529"}
            )
        assert caught.value.body["error"]["type"] == "overloaded_error"

    def test_a_retry_succeeds(self, shell):
        """An attempt can fail so often and no more, as the SDK's own retry count tells."""
        client = shell.openai().with_options(max_retries=2)
        headers = {"x-llm-status": "500", "x-llm-fail-times": "1", "x-llm-retry-after": "0.01"}
        client.chat.completions.create(model="gpt-4o", messages=HELLO, extra_headers=headers)
        assert (len(shell.server.requests), shell.server.generated["gpt-4o"].requests) == (2, 1)

    def test_a_mistyped_control_is_refused(self, shell):
        """An unknown control header is an error rather than a test that steers nothing."""
        with pytest.raises(openai.BadRequestError, match="x-llm-latncy"):
            shell.openai().chat.completions.create(
                model="gpt-4o", messages=HELLO, extra_headers={"x-llm-latncy": "1"}
            )

    @pytest.mark.parametrize("chunks", [0, 1, 4])
    def test_a_stream_is_cut_after_its_chunks(self, shell, chunks):
        """The caller gets exactly so many chunks and then an error of the connection."""
        stream = shell.openai().chat.completions.create(
            model="gpt-4o", messages=HELLO, stream=True, extra_headers={"x-llm-cut-after": str(chunks)}
        )
        seen = []
        with pytest.raises((openai.APIConnectionError, http_flavour("openai").RemoteProtocolError)):
            seen.extend(iter_into(seen, stream))
        assert len(seen) == chunks

    async def test_a_cut_stream_fails_async_readers(self, shell):
        """An asynchronous reader of a cut message stream gets the HTTP library's own error."""
        stream = await shell.anthropic(anthropic.AsyncAnthropic).messages.create(
            model="m", max_tokens=9, messages=HELLO, stream=True, extra_headers={"x-llm-cut-after": "4"}
        )
        with pytest.raises(http_flavour("anthropic").RemoteProtocolError):
            async for _ in stream:
                pass

    @pytest.mark.parametrize("after", ["0", "1"])
    def test_a_plain_answer_is_cut(self, shell, after):
        """A plain answer is cut before its first byte or in its middle."""
        with pytest.raises(openai.APIConnectionError):
            shell.openai().chat.completions.create(
                model="gpt-4o", messages=HELLO, extra_headers={"x-llm-cut-after": after}
            )

    def test_a_hanging_server_times_the_caller_out(self, shell):
        """A request that is never answered ends with the caller's timeout."""
        with pytest.raises(openai.APITimeoutError):
            shell.openai().chat.completions.create(
                model="gpt-4o", messages=HELLO, timeout=0.05, extra_headers={"x-llm-hang": "1"}
            )

    def test_latency_is_waited(self, shell):
        """The first byte comes after the latency."""
        before = time.perf_counter()
        shell.openai().chat.completions.create(
            model="gpt-4o", messages=HELLO, extra_headers={"x-llm-latency-ms": "30"}
        )
        assert time.perf_counter() - before >= 0.03

    def test_chunks_are_paced(self, shell):
        """There is a wait after each chunk of a stream, here seven of them."""
        before = time.perf_counter()
        headers = {"x-llm-chunk-latency-ms": "5", "x-llm-chunks": "4"}
        list(
            shell.openai().chat.completions.create(
                model="gpt-4o", messages=HELLO, stream=True, extra_headers=headers
            )
        )
        assert time.perf_counter() - before >= 0.03


def iter_into(seen, stream):
    """Append to *seen* one by one, so that an error in the middle loses nothing."""
    for item in stream:
        seen.append(item)
    return []
