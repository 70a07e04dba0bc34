"""Streamed bodies: Django iterates them after the middleware has returned, where its context is gone."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeAlias

from asgiref.sync import AsyncToSync, sync_to_async

from paygent.context import as_payer
from paygent.web.limit_response import Declined, find_refusal
from paygent.web.request import RequestSlot

# Words the last event of a stream; ``None``: nothing can be said in this body, and the error stays an error.
LastWords: TypeAlias = Callable[[Declined], bytes | None]
_Answer: TypeAlias = "asyncio.Future[tuple[Any, BaseException | None]]"

CONTEXTS_FOR_TASKS = sys.version_info >= (3, 11)
_END = object()
_tasks: set[asyncio.Task[None]] = set()  # a loop holds its tasks weakly


class Body:
    """
    The body of a streamed response, each step of it in the request's context.

    :meth:`begin` takes the first part ahead of time: a limit met on the way there can still be answered with
    a status of its own, and a WSGI server sends nothing before the first part anyway.
    """

    __slots__ = ("_begun", "_done", "_last_words", "_on_end", "_slot", "_steps")

    def __init__(
        self,
        steps: Iterator[Any],
        slot: RequestSlot,
        last_words: LastWords,
        on_end: Callable[[], None],
    ) -> None:
        self._steps = steps
        self._slot = slot
        self._last_words = last_words
        self._on_end = on_end
        self._begun: list[Any] = []
        self._done = False

    def begin(self) -> None:
        """
        Take the first part.

        Raises:
            Exception: What the body raised on the way there.
        """
        with as_payer(self._slot):
            part = next(self._steps, _END)
        self._done = part is _END
        if not self._done:
            self._begun.append(part)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._begun:
            return self._begun.pop()
        if self._done:
            raise StopIteration
        try:
            with as_payer(self._slot):
                return next(self._steps)
        except StopIteration:
            self._done = True
            raise
        except Exception as error:  # noqa: BLE001  # raised again, unless it is a refusal that can be told
            self._done = True
            return _told(error, self._last_words)

    def close(self) -> None:
        """All was sent, or the client is gone: what the view's generator still holds is settled."""
        self._done = True
        self._begun.clear()
        close = getattr(self._steps, "close", None)
        try:
            if close is not None:
                with as_payer(self._slot):
                    close()
        finally:
            self._on_end()


class AsyncBody:
    """
    The asynchronous twin of :class:`Body`.

    One task of its own takes all the steps, in the context that it is made in, and none before the client
    wants it. So the first part can be waited for within limits, and a time-out or a task group that the
    view's generator holds across its ``yield`` stays within one task.
    """

    __slots__ = ("__weakref__", "_answer", "_context", "_feed", "_last_words", "_loop", "_slot", "_task")

    def __init__(
        self,
        steps: AsyncIterator[Any],
        slot: RequestSlot,
        last_words: LastWords,
        on_end: Callable[[], Awaitable[None]],
    ) -> None:
        self._slot = slot
        self._last_words = last_words
        self._loop = asyncio.get_running_loop()
        self._feed: asyncio.Queue[_Answer] = asyncio.Queue()
        self._answer: _Answer | None = None  # asked for, and not yet taken
        self._context = contextvars.copy_context()
        options: dict[str, Any] = {"context": self._context} if CONTEXTS_FOR_TASKS else {}
        run = _run(steps, self._feed, on_end)
        self._task: asyncio.Task[None] | None = self._loop.create_task(run, **options)
        _tasks.add(self._task)
        self._task.add_done_callback(_tasks.discard)

    async def begin(self, patience_s: float) -> None:
        """
        Wait for the first part, for the first LLM call that is admitted, or for *patience_s*.

        Behind a middleware of plain functions, on Python 3.10: for the first part.

        Raises:
            Exception: What the body raised on the way there.
        """
        answer, admitted = self._ask(), self._loop.create_future()
        tally = self._slot.tally
        tally.on_admitted = functools.partial(_tell, self._loop, admitted)
        is_bound = _has_lent_thread() and not CONTEXTS_FOR_TASKS  # what has begun on that thread ends there
        try:
            await asyncio.wait(
                (answer,) if is_bound else (answer, admitted),
                timeout=None if is_bound else patience_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
        except asyncio.CancelledError:
            await self.aclose()
            raise
        finally:
            tally.on_admitted = None
            self._context.run(_leave_thread)
        if answer.done() and not answer.cancelled() and (error := answer.result()[1]) is not None:
            self._task = None
            raise error

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if self._task is None:
            raise StopAsyncIteration
        answer = self._ask()
        try:
            part, error = await answer
        except asyncio.CancelledError:
            await self.aclose()
            raise
        self._answer = None
        if error is None and part is not _END:
            return part
        self._task = None
        if error is None:
            raise StopAsyncIteration
        return _told(error, self._last_words)

    async def aclose(self) -> None:
        """End it early, and wait until the view's generator has let go of what it holds."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    def close(self) -> None:
        """End it early; may be called from any thread."""
        task, self._task = self._task, None
        if task is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and its tasks with it
                self._loop.call_soon_threadsafe(task.cancel)

    def __del__(self) -> None:
        self.close()  # a response that was never sent: nobody else would end the task

    def _ask(self) -> _Answer:
        if self._answer is None:
            self._answer = self._loop.create_future()
            self._feed.put_nowait(self._answer)
        return self._answer


async def _run(
    steps: AsyncIterator[Any], feed: asyncio.Queue[_Answer], on_end: Callable[[], Awaitable[None]]
) -> None:
    """Answer each future of *feed* with the next part or the error; ends with the body."""
    answer: _Answer | None = None
    try:
        part = None
        while part is not _END:
            answer = await feed.get()
            try:
                part = await steps.__anext__()
            except StopAsyncIteration:
                part = _END
            _put(answer, part, None)
            _leave_thread()
    except asyncio.CancelledError:
        if answer is not None:
            answer.cancel()
        raise
    except BaseException as error:  # noqa: BLE001  # it belongs to whoever asked
        if answer is not None:
            _put(answer, _END, error)
    finally:
        aclose = getattr(steps, "aclose", None)
        try:
            if aclose is not None:
                await aclose()
        finally:
            await on_end()


def _leave_thread() -> None:
    """
    Have asgiref forget the thread that a middleware of plain functions lends to what runs inside of it.

    That middleware goes on once the first part is there, and its thread with it; work sent there would fail.
    """
    if _has_lent_thread():
        AsyncToSync.executors.current = None


def _has_lent_thread() -> bool:
    return getattr(AsyncToSync.executors, "current", None) is not None


def _put(answer: _Answer, part: Any, error: BaseException | None) -> None:
    if not answer.done():
        answer.set_result((part, error))


def _tell(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    """Wake whoever waits for *future*; called from any thread."""
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
        loop.call_soon_threadsafe(lambda: None if future.done() else future.set_result(None))


async def stepped(steps: Iterator[Any]) -> AsyncIterator[Any]:
    """
    Iterate a plain iterator from an event loop, each step on the request's own thread.

    It does not close *steps*: Django does so with the response, on that same thread, after a step that is
    still running.
    """
    step: Callable[..., Awaitable[Any]] = sync_to_async(next, thread_sensitive=True)
    while (part := await step(steps, _END)) is not _END:
        yield part


def _told(error: BaseException, last_words: LastWords) -> bytes:
    """The last event of a stream that met its limit; any other error is raised again."""
    refusal = find_refusal(error)
    words = last_words(refusal) if refusal is not None else None
    if words is None:
        raise error
    return words
