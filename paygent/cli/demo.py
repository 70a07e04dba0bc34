"""``paygent demo``: the whole product in some ten seconds."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from paygent.cli._board import Board, Row, make_board
from paygent.cli._servers import app_folder, load_app, providers, serving
from paygent.cli._visitors import Refused, Visitor
from paygent.client import Paygent
from paygent.context import current_payer, paygent_context
from paygent.core.errors import PaygentLimitExceeded
from paygent.core.models import GuardResult, UsageEvent

USERS = ("ada", "ben", "cleo")
QUESTIONS = {"ada": 40, "ben": 5, "cleo": 9}  # ada goes on until she is refused
REFRESH_S = 0.2
_HEADERS_SHOWN = ("content-type", "cache-control", "x-should-retry")


def run(*, serve: bool, live: bool, port: int = 0) -> int:
    """
    Run the demo; returns the exit status: 0, or 2 where it cannot run.

    Args:
        serve: Keep the app up for a browser until interrupted, instead of sending the demo's own users.
        live: Use the real providers, whose keys are in the environment.
        port: Of the app; 0 takes a free one.
    """
    if live and not (os.environ.get("OPENAI_API_KEY") or os.environ.get("ANTHROPIC_API_KEY")):
        sys.stderr.write("paygent demo --live needs OPENAI_API_KEY or ANTHROPIC_API_KEY in the environment\n")
        return 2
    try:
        with _stage(live=live, port=port, serve=serve) as (pg, url, who_answers):
            if serve:
                return _serve(url, who_answers)
            return Story(pg, url, make_board(sys.stdout)).tell(who_answers)
    except OSError as error:
        sys.stderr.write(f"paygent demo could not start: {error}\n")
        return 2


@contextmanager
def _stage(*, live: bool, port: int, serve: bool) -> Iterator[tuple[Paygent, str, str]]:
    """Everything that runs: providers, a temporary ledger, Paygent, and the app on top."""
    with ExitStack() as stack:
        folder = app_folder()
        who_answers = stack.enter_context(providers(live=live, chunk_latency_s=0.012 if serve else 0.0015))
        ledger = stack.enter_context(tempfile.TemporaryDirectory(prefix="paygent-demo-"))
        pg = Paygent.init(db_path=Path(ledger) / "paygent.db", plans=folder / "plans.toml")
        stack.callback(pg.shutdown)
        url = stack.enter_context(serving(load_app(folder), port))
        yield pg, url, who_answers


def _serve(url: str, who_answers: str) -> int:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", level=logging.WARNING)
    logging.getLogger("chat").setLevel(logging.INFO)
    print(f"\n  Chat on a plan:  {url}\n  Models:          {who_answers}\n  Stop with Ctrl-C.\n", flush=True)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
    return 0


class Story:
    """What the demo shows, scene by scene."""

    def __init__(self, pg: Paygent, url: str, board: Board) -> None:
        self._pg = pg
        self._url = url
        self._board = board
        self._calls: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()
        self._warned: set[str] = set()
        self._warnings: list[str] = []
        self._lines = _LastLine()

    def tell(self, who_answers: str) -> int:
        """Tell it; returns the exit status."""
        self._board.note(
            f"  app      {self._url}  (example_apps/chat_starlette)\n  models   {who_answers}\n"
            "  ledger   a temporary SQLite file\n",
            "Paygent demo: three users on two plans, through the real OpenAI and Anthropic SDKs",
        )
        self._pg.on_usage(self._count)
        self._pg.on_soft_gate(self._warn)
        with ExitStack() as stack:
            visitors = {name: stack.enter_context(Visitor(self._url, name)) for name in USERS}
            models = {name: visitor.choose_models() for name, visitor in visitors.items()}["ada"]
            refused = self._traffic(visitors)
            self._board.close()
            if refused is None:
                self._board.note("ada was not refused: her answers were too short to spend the plan")
                return 1
            self._show_refusal(refused)
            self._show_sdk(models)
            self._show_upgrade(visitors["ada"])
        self._show_models()
        self._board.note(f"  {self._lines.last}", "A log line of the app, from its on_usage callback")
        self._board.note("  paygent demo --serve    the same app, in your browser", "Next")
        return 0

    # -- while it runs --------------------------------------------------------------------------------

    def _traffic(self, visitors: dict[str, Visitor]) -> Refused | None:
        """All users at once; returns how ada was refused."""
        with ThreadPoolExecutor(len(visitors)) as pool:
            running: dict[str, Future[Refused | None]] = {
                name: pool.submit(visitor.chat, QUESTIONS[name]) for name, visitor in visitors.items()
            }
            while wait(running.values(), timeout=REFRESH_S).not_done:
                self._refresh()
            self._refresh()
        return running["ada"].result()

    def _refresh(self) -> None:
        while self._warnings:
            self._board.note(f"  ! soft gate: {self._warnings.pop(0)}")
        self._board.show([self._row(user) for user in USERS])

    def _row(self, user: str) -> Row:
        state = self._pg.get_user_state(user)
        guard = self._pg.check_guard(user)
        used, limit = state.current_usage.period_cost, state.plan_config.max_spend_per_period
        return Row(user, state.plan, self._calls[user], self._tokens[user], used, used / limit, guard.status)

    def _count(self, event: UsageEvent) -> None:
        self._calls[event.user_id] += 1
        self._tokens[event.user_id] += event.total_tokens

    def _warn(self, result: GuardResult) -> None:
        payer = current_payer()  # callbacks run in the context of the call
        user = payer.user_id if payer is not None else None
        if user is not None and user not in self._warned:
            self._warned.add(user)
            self._warnings.append(f"{user}: {result.message}")

    # -- afterwards -----------------------------------------------------------------------------------

    def _show_refusal(self, refused: Refused) -> None:
        head = [f"HTTP {refused.status} {refused.reason}"]
        head += [f"{name}: {refused.headers[name]}" for name in _HEADERS_SHOWN if name in refused.headers]
        body = json.dumps(refused.problem, indent=2, ensure_ascii=False)
        self._board.note(
            _indented("\n".join([*head, "", body])), "The plan is spent: ada's next question over HTTP"
        )

    def _show_sdk(self, models: Sequence[str]) -> None:
        """The same gate without a web app: plain SDK calls in ``paygent_context``."""
        lines = [_sdk_call(user, model) for user in ("ben", "ada") for model in models]
        self._board.note("\n".join(lines), "The same gate in plain code: with paygent_context(user): ...")

    def _show_upgrade(self, ada: Visitor) -> None:
        plan = ada.upgrade()
        after = ada.ask()
        said = "passes at once" if after is None else f"is refused: {after.status}"
        self._board.note(f"  ada moves to {plan}: her usage is kept, and her next question {said}", "Upgrade")
        self._board.show([self._row(user) for user in USERS])
        self._board.close()

    def _show_models(self) -> None:
        lines = [
            f"  {user:<6}{row.model:<20}{row.tokens_used:>8,} tokens  ${row.cost:.5f}"
            for user in USERS
            for row in self._pg.get_model_usage(user)
        ]
        self._board.note("\n".join(lines), "Usage per model")


class _LastLine(logging.Handler):
    """Keeps the last line that the app has logged."""

    def __init__(self) -> None:
        super().__init__()
        self.last = ""
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
        logger = logging.getLogger("chat")
        logger.setLevel(logging.INFO)
        logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.last = self.format(record)


def _sdk_call(user: str, model: str) -> str:
    call = f"  {user:<6}{'Anthropic' if model.startswith('claude') else 'OpenAI'}()"
    try:
        with paygent_context(user):
            _complete(model)
        return f"{call:<22}metered"
    except PaygentLimitExceeded as error:
        return f"{call:<22}PaygentLimitExceeded: {error.guard_result.message}"


def _complete(model: str) -> None:
    messages: Any = [{"role": "user", "content": "Is this worth it?"}]
    if model.startswith("claude"):
        from anthropic import Anthropic

        Anthropic().messages.create(model=model, max_tokens=200, messages=messages)
    else:
        from openai import OpenAI

        OpenAI().chat.completions.create(model=model, max_completion_tokens=200, messages=messages)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.splitlines())
