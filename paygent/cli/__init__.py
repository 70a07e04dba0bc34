"""The command line: ``paygent demo``, ``paygent serve`` and ``paygent manage``."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from paygent.cli import manage, serve

DEMO_NEEDS = ("anthropic", "openai", "starlette", "uvicorn")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(argv)
    missing = [name for name in options.needs if importlib.util.find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"paygent {options.command} needs {', '.join(missing)}: install them with  "
            f"pip install 'paygent[{options.extra}]'\n"
        )
        return 2
    try:
        status: int = options.run(options)
    except KeyboardInterrupt:
        return 130
    return status


def _run_demo(options: argparse.Namespace) -> int:
    from paygent.cli import demo  # the demo's needs are extras

    return demo.run(serve=options.serve, live=options.live, port=options.port)


class _Version(argparse.Action):
    """``--version``: looked up only where it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"paygent {version('paygent')}")
        except PackageNotFoundError:
            print("paygent, run from its sources")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("paygent", description="Runtime cost control for apps that call LLMs.")
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(metavar="command", dest="command", required=True)
    demo = commands.add_parser(
        "demo",
        help="a real web app, three users, two plans: metered, warned and refused",
        description=(
            "Starts a chat app and a loopback LLM server, sends three users on two plans through the real "
            "OpenAI and Anthropic SDKs, and shows what is metered, warned of and refused. Takes some ten "
            "seconds, needs no key and leaves nothing behind."
        ),
    )
    demo.add_argument("--serve", action="store_true", help="keep the app up for a browser, until Ctrl-C")
    demo.add_argument(
        "--live",
        action="store_true",
        help="talk to the real providers (OPENAI_API_KEY, ANTHROPIC_API_KEY); costs a few cents",
    )
    demo.add_argument("--port", type=serve.PORTS, default=0, help="port of the app; by default a free one")
    demo.set_defaults(run=_run_demo, needs=DEMO_NEEDS, extra="demo")
    serve.add_to(commands)
    manage.add_to(commands)
    return parser
