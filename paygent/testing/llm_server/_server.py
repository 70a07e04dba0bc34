"""The HTTP shell: sockets, threads and pacing; what is answered is the provider's business."""

from __future__ import annotations

import select
import socket
import socketserver
import threading
from collections import deque
from http import HTTPStatus
from typing import Any

from paygent.testing.llm_server._controls import Controls
from paygent.testing.llm_server._provider import FakeProvider, RequestRecord
from paygent.testing.llm_server._values import Answer, Generated
from paygent.testing.llm_server._words import REPLY_TOKENS

LINE_BYTES_MAX = 65_536
CLOSE_WAIT_S = 2.0
_POLL_S = 0.05


class _Connection(socketserver.StreamRequestHandler):
    """
    One client connection, kept alive for as many requests as it sends.

    Reads HTTP by hand: ``http.server`` parses headers with the e-mail package, which takes longer than all
    the rest of a request.
    """

    disable_nagle_algorithm = True
    server: _TCPServer

    def handle(self) -> None:
        try:
            while self._serve_one():
                pass
        except OSError:
            return  # the client went away, or the server is closing

    def _serve_one(self) -> bool:
        """Serve one request; false ends the connection."""
        words = self.rfile.readline(LINE_BYTES_MAX).decode("latin-1").split()
        if len(words) != 3:
            return False
        headers = self._read_headers()
        body = self._read_body(headers)
        answer = self.server.provider.answer(words[0], words[1], headers, body)
        return self._send(answer) and headers.get("connection", "").lower() != "close"

    def _read_headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        while True:
            line = self.rfile.readline(LINE_BYTES_MAX)
            if line in (b"\r\n", b"\n", b""):
                return headers
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()

    def _read_body(self, headers: dict[str, str]) -> bytes:
        if headers.get("expect", "").lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(headers.get("content-length", "0")))
        parts = []
        while size := int(self.rfile.readline(LINE_BYTES_MAX).partition(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline(LINE_BYTES_MAX)
        self.rfile.readline(LINE_BYTES_MAX)
        return b"".join(parts)

    def _send(self, answer: Answer) -> bool:
        controls = answer.controls
        if controls.hang:
            return self._wait_for_client_to_leave()
        if self._closes_within(controls.latency_s):
            return False
        return self._send_plain(answer) if answer.chunks is None else self._send_chunks(answer, answer.chunks)

    def _closes_within(self, seconds: float) -> bool:
        return seconds > 0 and self.server.closing.wait(seconds)

    def _wait_for_client_to_leave(self) -> bool:
        while not self.server.closing.is_set():
            readable, _, _ = select.select([self.connection], [], [], _POLL_S)
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                break
        return False

    def _send_plain(self, answer: Answer) -> bool:
        head = _head(answer) + f"content-length: {len(answer.body)}\r\n\r\n".encode()
        cut_after = answer.controls.cut_after
        if cut_after is None:
            self.wfile.write(head + answer.body)
            return True
        if cut_after > 0:
            self.wfile.write(head + answer.body[: len(answer.body) // 2])
        return False

    def _send_chunks(self, answer: Answer, chunks: tuple[bytes, ...]) -> bool:
        cut_after = answer.controls.cut_after
        sent = chunks if cut_after is None else chunks[:cut_after]
        head = _head(answer) + b"transfer-encoding: chunked\r\n\r\n"
        framed = [b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in sent]
        last = b"0\r\n\r\n" if cut_after is None else b""
        if not answer.controls.chunk_latency_s:
            self.wfile.write(head + b"".join(framed) + last)
            return cut_after is None
        self.wfile.write(head)
        for chunk in framed:
            self.wfile.write(chunk)
            if self._closes_within(answer.controls.chunk_latency_s):
                return False
        self.wfile.write(last)
        return cut_after is None


def _head(answer: Answer) -> bytes:
    lines = [f"HTTP/1.1 {answer.status} {_reason(answer.status)}"]
    lines += [f"{name}: {value}" for name, value in answer.headers.items()]
    return ("\r\n".join(lines) + "\r\n").encode()


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Overloaded"  # Anthropic's 529 is in no standard


class _TCPServer(socketserver.ThreadingTCPServer):
    """A thread per connection; knows its open connections, so that it can end them."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], provider: FakeProvider) -> None:
        self.provider = provider
        self.closing = threading.Event()
        self._open: set[Any] = set()
        self._changed = threading.Condition()
        super().__init__(address, _Connection)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changed:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self._changed:
            self._open.discard(request)
            self._changed.notify_all()

    def end_connections(self) -> None:
        """End all connections and wait until their threads have let go."""
        self.closing.set()
        with self._changed:
            for connection in self._open:
                _end(connection)
            self._changed.wait_for(lambda: not self._open, CLOSE_WAIT_S)


def _end(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it has ended by itself


class LLMServer:
    """
    An OpenAI- and Anthropic-compatible server on this machine's loopback, on a thread of this process.

    ::

        with LLMServer(latency_s=0.05) as server:
            client = openai.OpenAI(base_url=server.openai_base_url, api_key="any")

    Args:
        latency_s: Wait before the first byte of each answer.
        chunk_latency_s: Wait after each chunk of a stream.
        reply_tokens: Length of the text, where the request's own maximum allows it.
        controls: All settings at once, instead of the three above.
        polls: How often background work is found unfinished before it is done.
        log_size: How many requests ``requests`` keeps.
        host, port: Where to listen; port 0 takes a free one.
    """

    def __init__(
        self,
        *,
        latency_s: float = 0.0,
        chunk_latency_s: float = 0.0,
        reply_tokens: int = REPLY_TOKENS,
        controls: Controls | None = None,
        polls: int = 0,
        log_size: int = 1000,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        set_up = Controls(latency_s=latency_s, chunk_latency_s=chunk_latency_s, reply_tokens=reply_tokens)
        self.provider = FakeProvider(controls or set_up, polls=polls, log_size=log_size)
        self._address = host, port
        self._tcp: _TCPServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The server's address, without a path."""
        if self._tcp is None:
            raise RuntimeError("the server is not running; use it as a context manager or call start()")
        host, port = self._tcp.server_address[:2]
        return f"http://{host!s}:{port}"

    @property
    def openai_base_url(self) -> str:
        """What to pass as ``base_url=`` of the OpenAI clients."""
        return f"{self.url}/v1"

    @property
    def anthropic_base_url(self) -> str:
        """What to pass as ``base_url=`` of the Anthropic clients."""
        return self.url

    @property
    def requests(self) -> deque[RequestRecord]:
        """The last requests, oldest first."""
        return self.provider.requests

    @property
    def generated(self) -> dict[str, Generated]:
        """What was generated for each model so far."""
        return self.provider.generated

    def reset(self) -> None:
        """Forget the log and the totals."""
        self.provider.reset()

    def start(self) -> LLMServer:
        """Listen and serve until :meth:`close`."""
        self._tcp = _TCPServer(self._address, self.provider)
        self._thread = threading.Thread(
            target=self._tcp.serve_forever, args=(_POLL_S,), name="paygent-llm-server", daemon=True
        )
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop listening and end all connections, also those that wait."""
        if self._tcp is None or self._thread is None:
            return
        self._tcp.shutdown()
        self._thread.join()
        self._tcp.server_close()
        self._tcp.end_connections()
        self._tcp = self._thread = None

    def __enter__(self) -> LLMServer:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.close()
