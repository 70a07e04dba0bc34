"""
Dramatiq: the messages that a user's request sends are his, wherever they run.

::

    from paygent.integrations.dramatiq import PaygentMiddleware

    broker.add_middleware(PaygentMiddleware())

The user goes with each message as an option, through retries, delays and pipelines too.
"""

from __future__ import annotations

import threading
from typing import Any

try:
    from dramatiq import Broker, Message, Middleware
    from dramatiq.broker import MessageProxy
except ImportError as error:
    raise ImportError('this needs Dramatiq: pip install "paygent[dramatiq]"') from error

from paygent.context import Payer, current_payer, set_payer
from paygent.propagation import NOTE, note, noted_payer


class _Written(str):
    """A note in a message on its way out; in one that a worker has received it is plain text."""

    __slots__ = ()

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str.__str__(self),)


class PaygentMiddleware(Middleware):
    """Notes the user in every message sent through the broker, and heeds the notes of those it runs."""

    def __init__(self) -> None:
        self._before = threading.local()  # who paid before the message that this thread is at

    def before_enqueue(self, _: Broker, message: Message[Any], __: int | None) -> None:
        """Write the note; a message that a worker sends again keeps the one it came with."""
        _unnote(message)
        if NOTE not in message.options:
            text = note()
            if text is not None:
                message.options[NOTE] = _Written(text)

    def after_enqueue(self, _: Broker, message: Message[Any], __: int | None) -> None:
        """Take it out again: the app may send the same message, or pipeline, for somebody else."""
        _unnote(message)

    def before_process_message(self, _: Broker, message: MessageProxy) -> None:
        """The calls of the actor are those of the user in the note."""
        payer = noted_payer(message.options.get(NOTE))
        if payer is not None:
            self._before.payer = (current_payer(),)
            set_payer(payer)

    def after_process_message(
        self,
        _: Broker,
        message: MessageProxy,
        *,
        result: Any = None,  # noqa: ARG002  # what the broker says
        exception: BaseException | None = None,  # noqa: ARG002  # what the broker says
    ) -> None:
        """The next message of this thread has nothing of it; what comes next in a pipeline has the user."""
        text = message.options.get(NOTE)
        if text is not None:
            for following in _following(message.options):
                following.setdefault("options", {}).setdefault(NOTE, text)
        self._leave()

    def after_skip_message(self, _: Broker, __: MessageProxy) -> None:
        """The same where another middleware skipped the message."""
        self._leave()

    def _leave(self) -> None:
        before: tuple[Payer | None] | None = self._before.__dict__.pop("payer", None)
        if before is not None:
            set_payer(before[0])


def _unnote(message: Message[Any]) -> None:
    """Leave no note of ours behind, nor one of an attempt to send it that has failed."""
    if isinstance(message.options.get(NOTE), _Written):
        message.options.pop(NOTE, None)


def _following(options: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages that are sent when this one is done: the next of a pipeline, the callbacks of a group."""
    target = options.get("pipe_target")
    return [*([target] if target else []), *(options.get("group_completion_callbacks") or [])]
