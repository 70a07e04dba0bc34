from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.request

import anthropic
import openai
import pytest
from llm_shells import HELLO

from paygent.testing.llm_server import Controls, LLMServer


class TestBackground:
    def test_a_background_response_is_ready_after_its_polls(self):
        """A background response has no usage until the set number of polls has passed."""
        with LLMServer(polls=1) as server:
            client = openai.OpenAI(base_url=server.openai_base_url, api_key="any")
            sent = client.responses.create(model="gpt-4o", input="Hi", extra_body={"background": True})
            looks = [client.responses.retrieve(sent.id) for _ in range(2)]
        assert [sent.status, *(look.status for look in looks)] == ["queued", "in_progress", "completed"]
        assert (sent.usage, looks[0].usage, looks[1].usage.input_tokens) == (None, None, 1)

    def test_an_openai_batch_runs_its_lines(self, shell):
        """A batch answers each line with a body that has its usage."""
        client = shell.openai()
        line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions"}
        line["body"] = {"model": "gpt-4o", "messages": HELLO}
        file = client.files.create(file=("in.jsonl", json.dumps(line).encode()), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        done = client.batches.retrieve(batch.id)
        result = json.loads(client.files.content(done.output_file_id).text)
        assert (batch.status, done.status, done.request_counts.completed) == ("validating", "completed", 1)
        assert (result["custom_id"], result["response"]["body"]["usage"]["prompt_tokens"]) == ("a", 5)
        assert shell.server.generated["gpt-4o"].requests == 1

    async def test_an_anthropic_batch_has_results(self, shell):
        """The results of a message batch are messages billed at the batch tier."""
        client = shell.anthropic(anthropic.AsyncAnthropic)
        params = {"model": "claude-sonnet-5-5", "max_tokens": 9, "messages": HELLO}
        batch = await client.messages.batches.create(requests=[{"custom_id": "a", "params": params}])
        results = [each async for each in await client.messages.batches.results(batch.id)]
        assert (results[0].custom_id, results[0].result.message.usage.service_tier) == ("a", "batch")


class TestServer:
    def test_logs_requests(self, server):
        """The log has method, path, lower-case headers, the body and when it came."""
        client = openai.OpenAI(base_url=server.openai_base_url, api_key="secret")
        client.chat.completions.create(model="gpt-4o", messages=HELLO)
        record = server.requests[-1]
        assert (record.method, record.path, record.body["messages"]) == (
            "POST",
            "/v1/chat/completions",
            HELLO,
        )
        assert record.headers["authorization"] == "Bearer secret"
        assert abs(record.when_s - time.time()) < 60

    def test_closing_ends_hanging_requests(self):
        """A server closes at once while a request hangs, and its caller gets an error."""
        caught: list[Exception] = []
        with LLMServer(controls=Controls(hang=True)) as server:
            client = openai.OpenAI(base_url=server.openai_base_url, api_key="any", max_retries=0)
            caller = threading.Thread(target=self._failing_call, args=(client, caught))
            caller.start()
            while not server.requests:
                time.sleep(0.005)
        caller.join(60)
        assert isinstance(caught[0], openai.APIConnectionError)

    @staticmethod
    def _failing_call(client, caught):
        try:
            client.chat.completions.create(model="gpt-4o", messages=HELLO)
        except openai.APIConnectionError as error:
            caught.append(error)

    def test_leaves_no_thread(self):
        """After closing, no thread of the server is left."""
        before = threading.active_count()
        with LLMServer() as server:
            client = openai.OpenAI(base_url=server.openai_base_url, api_key="any")
            client.chat.completions.create(model="gpt-4o", messages=HELLO)
        assert threading.active_count() <= before + 1  # a connection's thread may be on its last line

    def test_serves_many_connections_at_once(self):
        """Clients are answered while seven others wait for an answer that never comes."""
        caught: list[Exception] = []
        with LLMServer() as server:
            hanging = openai.OpenAI(
                base_url=server.openai_base_url,
                api_key="any",
                max_retries=0,
                default_headers={"x-llm-hang": "1"},
            )
            callers = [threading.Thread(target=self._failing_call, args=(hanging, caught)) for _ in range(7)]
            for caller in callers:
                caller.start()
            while len(server.requests) < 7:
                time.sleep(0.005)
            client = openai.OpenAI(base_url=server.openai_base_url, api_key="any")
            assert client.chat.completions.create(model="gpt-4o", messages=HELLO).choices
            assert caught == []
        for caller in callers:
            caller.join(60)
        assert len(caught) == 7

    def test_reads_chunked_bodies(self, server):
        """A request body sent in chunks of unknown number is read whole."""
        body = iter([b'{"model": "gpt-4o", ', b'"messages": []}'])
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"{server.url}/v1/chat/completions", body, headers)
        with urllib.request.urlopen(request) as reply:
            assert json.load(reply)["model"] == "gpt-4o"
        assert server.requests[-1].body == {"model": "gpt-4o", "messages": []}

    def test_needs_to_run_for_an_address(self):
        """The address of a server that is not running is an error that says what to do."""
        with pytest.raises(RuntimeError, match="context manager"):
            _ = LLMServer().url

    def test_runs_from_the_command_line(self):
        """The command prints its address first and ends with 0 when it is told to."""
        command = [sys.executable, "-m", "paygent.testing.llm_server", "--port", "0", "--reply-tokens", "3"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            url = process.stdout.readline().strip()
            client = anthropic.Anthropic(base_url=url, api_key="any")
            answer = client.messages.create(model="m", max_tokens=9, messages=HELLO)
            process.terminate()
            assert process.wait(60) == 0
        assert answer.usage.output_tokens == 3

    def test_loads_no_http_client(self):
        """The server and the transport load neither HTTP client nor SDK before they are used."""
        code = (
            "import sys, paygent.testing.llm_server, paygent.testing.transport;"
            "print([m for m in ('httpx', 'httpx2', 'openai', 'anthropic') if m in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"
