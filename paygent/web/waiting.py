"""Waiting for an async option in plain code: never on the loop that waits, and never for ever."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError  # a class of its own before Python 3.11
from typing import Any

WAIT_S = 2.0  # what is asked may need the very loop that stands still meanwhile


class CannotAwaitError(RuntimeError):
    """An async option is needed on a thread that may not wait for it."""


def on_loop(find: Callable[[], Coroutine[Any, Any, Any]], loop: asyncio.AbstractEventLoop | None) -> Any:
    """
    Run *find* on the event loop of the request, from a thread that is not the loop's.

    Raises:
        CannotAwaitError: There is no such loop any more, this is its own thread, or it did not get to *find*
            within ``WAIT_S``: it stands still, for this very thread perhaps.
        Exception: What *find* raises, and ``TimeoutError`` where it takes longer itself.
    """
    if loop is None or not loop.is_running() or _running() is loop:
        raise CannotAwaitError
    begun = False

    async def run() -> Any:
        nonlocal begun
        begun = True
        return await find()

    coroutine = run()
    try:
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    except RuntimeError as error:  # closed in this moment
        coroutine.close()
        raise CannotAwaitError from error
    try:
        return future.result(WAIT_S)
    except FutureTimeoutError as error:
        future.cancel()
        if begun:
            raise
        raise CannotAwaitError from error


def on_own_thread(function: Callable[..., Any], *args: Any) -> Any:
    """
    Run *function* on a thread made for it, in an empty context.

    Raises:
        TimeoutError: It took longer than ``WAIT_S``; the thread is left to itself.
        Exception: What *function* raises.
    """
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(function(*args))
        except BaseException as error:  # noqa: BLE001  # it belongs to whoever waits
            future.set_exception(error)

    threading.Thread(target=run, name="paygent-user", daemon=True).start()
    return future.result(WAIT_S)


def _running() -> asyncio.AbstractEventLoop | None:
    with contextlib.suppress(RuntimeError):
        return asyncio.get_running_loop()
    return None
