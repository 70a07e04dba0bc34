"""The functions of RQ jobs."""

from __future__ import annotations

import os
from pathlib import Path

import task_calls

from paygent.context import current_payer

if "TASKS_DB" in os.environ:
    task_calls.start_paygent()


def user():
    """Make one call of a model, and return for whom."""
    task_calls.ask()
    payer = current_payer()
    return os.getpid(), None if payer is None else payer.user_id


async def user_later():
    """Do the same in a coroutine."""
    return user()


def fail_once(flag):
    """Fail at the first attempt."""
    if not Path(flag).exists():
        Path(flag).touch()
        raise ConnectionError("once")
    return user()
