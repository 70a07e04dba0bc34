"""
The payer of the present context, taken into another thread.

A new thread starts in an empty context, and a pool's thread keeps the one that it started in. So the payer
goes with the function, for the time of one call: what the thread runs before and after has nothing of it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from paygent._forking import ProcessLock
from paygent.context import as_payer, current_payer, in_context

F = TypeVar("F", bound=Callable[..., Any])


def propagate(fn: F) -> F:
    """
    Return *fn* bound to whoever pays here and now, so that another thread can run it for him.

    ::

        pool.submit(propagate(work), document)
        threading.Thread(target=propagate(work)).start()

    Any number of threads may run it, also at once and long after the block has ended. Functions of every kind
    work: plain, async, generator and async generator. Where nobody pays, *fn* comes back as it is.

    Raises:
        TypeError: *fn* cannot be called.
    """
    if not callable(fn):
        raise TypeError(f"propagate() takes a function, not {type(fn).__name__}: propagate(fn), not fn()")
    payer = current_payer()
    return fn if payer is None else in_context(fn, lambda args, kwargs: payer)


def hint() -> str | None:
    """
    What may explain that a call made here belongs to nobody: its thread; ``None``: something else.

    A thread does not know where it was started, and knowing would not help: a pool's thread serves many
    requests after the one that started it. So nothing is noted when threads start; the call that nobody
    pays for looks where it is.
    """
    thread = threading.current_thread()
    if current_payer() is not None or thread is threading.main_thread() or _runs_a_loop():
        return None
    return (
        f"it was made in the thread {thread.name!r}: if that was started within paygent_context, hand over "
        "paygent.propagate(fn) in place of fn, or use Paygent.init(propagate_threads=True)"
    )


def _runs_a_loop() -> bool:
    """Whether an event loop runs in this thread: its tasks have a context of their own."""
    events = sys.modules.get("asyncio.events")
    return events is not None and events._get_running_loop() is not None  # noqa: SLF001  # the other one raises


# --- the patch --------------------------------------------------------------------------------------------

# Whose threads serve everybody, whoever happens to start them; they run callbacks of others, too.
_SERVING = ("asyncio.", "concurrent.futures.", "multiprocessing.", "paygent.")
_lock = ProcessLock()
_patches: dict[tuple[type, str], tuple[Any, Any]] = {}  # what is in place, and what it stands for
_live = False


def patch_threads() -> None:
    """
    Have every thread and every task of a thread pool run for whoever starts it; again changes nothing.

    Covers ``threading.Thread``, ``ThreadPoolExecutor`` and with it ``loop.run_in_executor``. Left alone are
    pools in other processes or interpreters, the threads of ``multiprocessing.pool.ThreadPool``, which
    outlive the request that happens to start them, and threads that are given a context of their own.
    """
    global _live  # noqa: PLW0603  # one patch per process
    from concurrent.futures import ThreadPoolExecutor  # both are loaded where the patch is asked for

    from wrapt import FunctionWrapper

    targets = ((ThreadPoolExecutor, "submit", _submit), (threading.Thread, "start", _start))
    with _lock:
        _live = True
        for owner, name, wrapper in targets:
            if (owner, name) not in _patches:
                original = vars(owner)[name]
                patch = FunctionWrapper(original, wrapper, enabled=_is_live)
                setattr(owner, name, patch)
                _patches[owner, name] = (patch, original)


def unpatch_threads() -> None:
    """
    Take the patch off; what was handed over before keeps its payer.

    A patch that somebody else has wrapped since stays, and does nothing: taking it off would take theirs off.
    """
    global _live  # noqa: PLW0603  # one patch per process
    with _lock:
        _live = False
        for (owner, name), (patch, original) in list(_patches.items()):
            if vars(owner)[name] is patch:
                setattr(owner, name, original)
                del _patches[owner, name]


def _is_live() -> bool:
    return _live


def _submit(submit: Callable[..., Any], pool: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    payer = current_payer()
    if payer is None or not args or not callable(args[0]) or _is_of_interpreters(pool):
        return submit(*args, **kwargs)
    fn = in_context(args[0], lambda args, kwargs: payer)
    with as_payer(None):  # a thread that the pool starts now serves others afterwards
        return submit(fn, *args[1:], **kwargs)


def _is_of_interpreters(pool: Any) -> bool:
    """Whether the pool pickles what it runs (Python 3.14)."""
    module = sys.modules.get("concurrent.futures.interpreter")
    return module is not None and isinstance(pool, module.InterpreterPoolExecutor)


def _start(start: Callable[..., Any], thread: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    payer = current_payer()
    if payer is None or thread.ident is not None or getattr(thread, "_context", None) is not None:
        return start(*args, **kwargs)  # nobody's, started before, or with a context of its own (Python 3.14)
    if _serves_all(thread):
        with as_payer(None):  # for Pythons whose threads inherit their context
            return start(*args, **kwargs)
    own = vars(thread).get("run")
    run = thread.run

    def run_for_payer() -> None:
        _restore(thread, own)
        with as_payer(payer):
            run()

    thread.run = run_for_payer
    try:
        return start(*args, **kwargs)
    except BaseException:
        _restore(thread, own)
        raise


def _serves_all(thread: Any) -> bool:
    target = getattr(thread, "_target", None)
    modules = (type(thread).__module__, getattr(target, "__module__", None) or "")
    return any(f"{module}.".startswith(_SERVING) for module in modules)


def _restore(thread: Any, own: Any) -> None:
    """Give the thread back its own ``run``: ours would keep it, and its payer, in a reference cycle."""
    if own is None:
        vars(thread).pop("run", None)
    else:
        thread.run = own
