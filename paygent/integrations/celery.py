"""
Celery: the tasks that a user's request sends are his, wherever they run.

::

    from paygent.integrations import celery

    celery.install()  # where the app is made: producers and workers both import that

The user goes with each message as a header, through chains, groups and retries too. Tasks that run in place
(``apply()``, ``task_always_eager``) stay in their caller's context.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

try:
    from celery import signals
except ImportError as error:
    raise ImportError('this needs Celery: pip install "paygent[celery]"') from error

from paygent.client import Paygent
from paygent.context import current_payer, set_payer
from paygent.propagation import NOTE, note, noted_payer

_PREVIOUS = "_paygent_previous"  # who paid before the task, kept with the request of the task
_SHUTDOWN_S = 3.0


def install() -> None:
    """Note the user in each task that is sent, heed the notes of those that run; again changes nothing."""
    for signal, receiver in _RECEIVERS:
        signal.connect(receiver, weak=False, dispatch_uid=f"paygent.{receiver.__name__}")


def uninstall() -> None:
    """Send and run tasks without a user again."""
    for signal, receiver in _RECEIVERS:
        signal.disconnect(receiver, dispatch_uid=f"paygent.{receiver.__name__}")


def _note_user(headers: MutableMapping[str, Any] | None = None, **_: Any) -> None:
    """Write the note into the headers of a message about to be sent."""
    text = note()
    if headers is not None and text is not None:
        headers[NOTE] = text


def _enter(task: Any = None, **_: Any) -> None:
    """Before a task: its calls are those of the user in its note."""
    payer = noted_payer(getattr(task.request, NOTE, None))
    if payer is not None:
        setattr(task.request, _PREVIOUS, (current_payer(),))
        set_payer(payer)


def _leave(task: Any = None, **_: Any) -> None:
    """After a task: the next one of this worker has nothing of it."""
    previous = vars(task.request).pop(_PREVIOUS, None)
    if previous is not None:
        set_payer(previous[0])


def _settle(**_: Any) -> None:
    """Before a child of the pool ends: Celery ends it without Python's own exit."""
    pg = Paygent.get_instance()
    if pg is not None:
        pg.shutdown(_SHUTDOWN_S)


_RECEIVERS = (
    (signals.before_task_publish, _note_user),
    (signals.task_prerun, _enter),
    (signals.task_postrun, _leave),
    (signals.worker_process_shutdown, _settle),
)
