"""``python -m paygent.testing.llm_server``: serve until interrupted; the first line printed is the URL."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence

from paygent.testing.llm_server import LLMServer
from paygent.testing.llm_server._words import REPLY_TOKENS


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server; returns 0 when it was asked to stop."""
    options = _parser().parse_args(argv)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with LLMServer(
        host=options.host,
        port=options.port,
        latency_s=options.latency_ms / 1000,
        chunk_latency_s=options.chunk_latency_ms / 1000,
        reply_tokens=options.reply_tokens,
    ) as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        stop.wait()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m paygent.testing.llm_server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 takes a free one")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="wait before the first byte")
    parser.add_argument("--chunk-latency-ms", type=float, default=0.0, help="wait between chunks of a stream")
    parser.add_argument("--reply-tokens", type=int, default=REPLY_TOKENS, help="length of an answer")
    return parser


if __name__ == "__main__":
    sys.exit(main())
