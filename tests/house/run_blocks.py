"""
Run the Python blocks of one document in order, in one namespace: ``python run_blocks.py README.md``.

Both SDKs are pointed at the loopback LLM server. A traceback shows the document's own line numbers.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import sys
from pathlib import Path

from project import Block, blocks

from paygent.testing.llm_server import LLMServer


def run(block: Block, document: Path, namespace: dict[str, object]) -> None:
    """Run one block; it may use ``await`` at its top level."""
    padded = "\n" * (block.line - 1) + block.code
    code = compile(padded, str(document), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(eval(code, namespace))
    else:
        exec(code, namespace)


def main() -> None:
    """Run the document named on the command line."""
    document = Path(sys.argv[1])
    namespace: dict[str, object] = {"__name__": "__main__"}
    with LLMServer() as server:
        os.environ.update(
            OPENAI_BASE_URL=server.openai_base_url,
            ANTHROPIC_BASE_URL=server.anthropic_base_url,
            OPENAI_API_KEY="sk-loopback",
            ANTHROPIC_API_KEY="sk-loopback",
        )
        for block in blocks(document.read_text(encoding="utf-8")):
            if block.info == "python":
                run(block, document, namespace)


if __name__ == "__main__":
    main()
