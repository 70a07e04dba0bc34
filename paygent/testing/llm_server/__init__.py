"""
An OpenAI- and Anthropic-compatible LLM server, for tests, demos and benchmarks without a provider.

::

    from paygent.testing.llm_server import LLMServer

    with LLMServer(latency_s=0.0) as server:
        client = openai.OpenAI(base_url=server.openai_base_url, api_key="any")

or ``python -m paygent.testing.llm_server --port 8089``. Answers have the shape of the providers' own, with
usage blocks that count the tokens really read and written (a token is a word or a punctuation mark).
``x-llm-*`` request headers (see :mod:`paygent.testing.llm_server._controls`) slow, break or re-bill one call.

The bodies need no server: ``FakeProvider.answer(method, path, headers, body)`` returns an ``Answer``, and
:mod:`paygent.testing.transport` puts it under an SDK client without a socket. Only the standard library is
used.
"""

from paygent.testing.llm_server._controls import Controls
from paygent.testing.llm_server._provider import FakeProvider, RequestRecord, answer
from paygent.testing.llm_server._server import LLMServer
from paygent.testing.llm_server._values import Answer, Generated, json_answer, stream_answer, typed_event

__all__ = [
    "Answer",
    "Controls",
    "FakeProvider",
    "Generated",
    "LLMServer",
    "RequestRecord",
    "answer",
    "json_answer",
    "stream_answer",
    "typed_event",
]
