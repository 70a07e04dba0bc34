"""
Serve one of the example apps, as in ``python example_apps/run.py chat_fastapi``.

Without a provider's key a loopback server answers in their place, and the ledger is a temporary one.
"""

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path

from paygent import Paygent

HERE = Path(__file__).resolve().parent
APPS = sorted(path.parent.name for path in HERE.glob("*/app.py"))
KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("app", choices=APPS)
    parser.add_argument("--port", type=int, default=8000)
    asked = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("chat").setLevel(logging.INFO)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    has_key = any(os.environ.get(key) for key in KEYS)
    with nullcontext() if has_key else loopback(asked.app):
        print(f"Chat on a plan: http://127.0.0.1:{asked.port}  (Ctrl-C stops it)", flush=True)  # noqa: T201
        serve(asked.app, asked.port)


@contextmanager
def loopback(app: str) -> Iterator[None]:
    """Have both SDKs talk to a server of this process, and nothing stay behind."""
    from paygent.testing.llm_server import LLMServer

    server = LLMServer(latency_s=0.06, chunk_latency_s=0.012, reply_tokens=120)
    with tempfile.TemporaryDirectory(prefix="paygent-example-") as folder, server:
        os.environ.update(dict.fromkeys(KEYS, "sk-loopback"), CHAT_DATABASE=f"{folder}/chat.sqlite3")
        os.environ["OPENAI_BASE_URL"] = server.openai_base_url
        os.environ["ANTHROPIC_BASE_URL"] = server.anthropic_base_url
        if app != "chat_django":  # its ledger is the project's own database
            Paygent.init(db_path=f"{folder}/paygent.db", plans=HERE / app / "plans.toml")
        print("No key of a provider: a loopback server answers, at no cost.", flush=True)  # noqa: T201
        try:
            yield
        finally:
            if pg := Paygent.get_instance():
                pg.shutdown()


def serve(name: str, port: int) -> None:
    sys.path.insert(0, str(HERE / name))
    module = import_module("app")
    if hasattr(module, "create_app"):
        module.create_app().run(port=port, threaded=True)
    else:
        import uvicorn

        uvicorn.run(module.app, port=port, log_level="warning")


if __name__ == "__main__":
    main()
