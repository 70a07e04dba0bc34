"""The patch behind ``init(propagate_threads=True)``."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import multiprocessing.pool
import os
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest
import wrapt
from langchain_core.runnables import RunnableLambda

from paygent import Paygent, paygent_context
from paygent.context import Payer, as_payer, current_payer
from paygent.propagation import hint, patch_threads, unpatch_threads

pytestmark = pytest.mark.usefixtures("patched")


def user():
    payer = current_payer()
    return None if payer is None else payer.user_id


def collect(seen):
    return lambda *args: seen.append(user())


def test_a_thread_runs_for_whoever_starts_it(ask, posted):
    """A plain thread started in a context is the user's."""
    patch_threads()
    with paygent_context("ann"):
        thread = threading.Thread(target=ask)
        thread.start()
    thread.join()
    assert posted == ["ann"]


def test_a_subclass_with_its_own_run_is_covered():
    """Overriding ``run`` is the other way to write a thread; a timer is one of these."""
    patch_threads()
    seen = []

    class Worker(threading.Thread):
        def run(self):
            seen.append(user())

    timer = threading.Timer(0, collect(seen))
    with paygent_context("ann"):
        worker = Worker()
        worker.start()
        timer.start()
    worker.join()
    timer.join()
    assert seen == ["ann", "ann"]


def test_a_pool_runs_each_task_for_its_own_user():
    """One worker thread, two users and nobody: each task has its own, whoever started the thread."""
    patch_threads()
    with ThreadPoolExecutor(1) as pool:
        with paygent_context("ann"):
            first = pool.submit(user)
        with paygent_context("ben"):
            second = list(pool.map(lambda _: user(), range(2)))
        assert (first.result(), second, pool.submit(user).result()) == ("ann", ["ben", "ben"], None)


def test_200_users_on_one_pool_keep_apart():
    """Interleaved users on few threads: no task sees another's user."""
    patch_threads()
    with ThreadPoolExecutor(4) as pool:
        futures = {}
        for number in range(200):
            with paygent_context(f"user-{number}"):
                futures[pool.submit(user)] = f"user-{number}"
        assert [future.result() for future in futures] == list(futures.values())


def test_run_in_executor_is_covered():
    """``run_in_executor`` goes through the pool's ``submit``, with the loop's own pool too."""
    patch_threads()

    async def main():
        loop = asyncio.get_running_loop()
        with paygent_context("ann"):
            own = await loop.run_in_executor(None, user)
            with ThreadPoolExecutor(1) as pool:
                given = await loop.run_in_executor(pool, user)
        return own, given, await loop.run_in_executor(None, user)

    assert asyncio.run(main()) == ("ann", "ann", None)


def test_frameworks_that_copy_the_context_are_not_disturbed():
    """LangChain's batch has a pool of its own that copies contexts: the same user, each task."""
    patch_threads()
    with paygent_context("ann"):
        assert RunnableLambda(lambda _: user()).batch([1, 2, 3]) == ["ann"] * 3


def test_the_threads_of_multiprocessing_serve_everybody():
    """A ``ThreadPool`` made within a request does not keep that request's user, in callbacks neither."""
    patch_threads()
    called = []
    with paygent_context("ann"):
        pool = multiprocessing.pool.ThreadPool(1)
    with pool:
        assert pool.apply(user) is None
        pool.apply_async(user, callback=collect(called)).get()
        pool.close()
        pool.join()
    assert called == [None]


def test_the_callbacks_of_a_process_pool_serve_everybody():
    """The thread in which a process pool calls back is nobody's; what it runs is pickled as it is."""
    patch_threads()
    called = []
    done = threading.Event()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        with paygent_context("ann"):
            assert pool.submit(os.getppid).result(30) == os.getpid()
        future = pool.submit(os.getpid)
        future.add_done_callback(lambda _: (called.append(user()), done.set()))
        assert done.wait(30)
    assert called == [None]


def test_a_thread_started_in_an_empty_context_is_nobodys():
    """The way out for a thread that serves everybody: start it in a context of its own."""
    patch_threads()
    seen = []
    thread = threading.Thread(target=collect(seen))
    with paygent_context("ann"):
        contextvars.Context().run(thread.start)
    thread.join()
    assert seen == [None]


def test_without_the_patch_threads_have_nobody():
    """The patch is opt-in."""
    seen = []
    with paygent_context("ann"):
        thread = threading.Thread(target=collect(seen))
        thread.start()
    thread.join()
    assert seen == [None]


def test_the_patch_comes_off_and_leaves_no_trace():
    """Twice on, once off: the originals are back."""
    originals = vars(ThreadPoolExecutor)["submit"], vars(threading.Thread)["start"]
    patch_threads()
    patch_threads()
    assert vars(threading.Thread)["start"] is not originals[1]
    assert vars(threading.Thread)["start"].__wrapped__ is originals[1]
    unpatch_threads()
    unpatch_threads()
    assert (vars(ThreadPoolExecutor)["submit"], vars(threading.Thread)["start"]) == originals


def test_somebody_elses_patch_on_top_stays():
    """What another tool put over ours survives; ours sleeps below it, and wakes when asked for again."""
    original = vars(threading.Thread)["start"]
    patch_threads()
    counted = []

    def count(wrapped, instance, args, kwargs):
        counted.append(instance)
        return wrapped(*args, **kwargs)

    wrapt.wrap_function_wrapper(threading.Thread, "start", count)
    try:
        seen = []
        for patch in (unpatch_threads, patch_threads):
            patch()
            with paygent_context("ann"):
                thread = threading.Thread(target=collect(seen))
                thread.start()
            thread.join()
        assert (seen, len(counted)) == ([None, "ann"], 2)
    finally:
        threading.Thread.start = vars(threading.Thread)["start"].__wrapped__
        unpatch_threads()
    assert vars(threading.Thread)["start"] is original


def test_a_thread_keeps_neither_our_function_nor_the_payer():
    """After the thread has run, nothing refers to the payer."""
    patch_threads()

    class Metadata(dict):
        pass

    metadata = Metadata(feature="chat")
    gone = weakref.ref(metadata)
    with as_payer(Payer("ann", None, None, metadata)):
        thread = threading.Thread(target=user)
        thread.start()
    thread.join()
    assert "run" not in vars(thread)
    del metadata
    gc.collect()
    assert gone() is None


def test_a_thread_that_cannot_start_is_left_as_it_was():
    """Starting twice is the caller's error, and changes nothing."""
    patch_threads()
    with paygent_context("ann"):
        thread = threading.Thread(target=user)
        thread.start()
        thread.join()
        with pytest.raises(RuntimeError, match="once"):
            thread.start()
    assert "run" not in vars(thread)


def test_a_forked_child_has_the_patch_and_its_own_lock():
    """A child forked while the lock was held can patch, unpatch and start threads."""
    code = """
import os, threading
from paygent import Paygent, paygent_context
from paygent.context import current_payer
from paygent.propagation import _threads, patch_threads, unpatch_threads
patch_threads()
_threads._lock.__enter__()
child = os.fork()
if child == 0:
    seen = []
    with paygent_context("ann"):
        thread = threading.Thread(target=lambda: seen.append(current_payer().user_id))
        thread.start()
    thread.join()
    unpatch_threads()
    os._exit(0 if seen == ["ann"] else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


# --- the hint ---------------------------------------------------------------------------------------------


def test_a_call_in_a_thread_that_nobody_pays_for_names_propagate():
    """Where a thread made the call, the warning can say what to do, with the thread's name."""
    found = []
    with paygent_context("ann"):
        thread = threading.Thread(target=lambda: found.append(hint()), name="mailer")
        thread.start()
    thread.join()
    assert "'mailer'" in found[0]
    assert "paygent.propagate(fn)" in found[0]


def test_the_warning_is_said_once_and_names_propagate(pg, ask, caplog):
    """Two calls that belong to nobody, from threads started in a context: one line, with the way out."""
    ask()  # outside of any thread: another warning, that does not silence this one
    with paygent_context("ann"):
        for _ in range(2):
            thread = threading.Thread(target=ask)
            thread.start()
            thread.join()
    told = [record.message for record in caplog.records if "propagate" in record.message]
    assert len(told) == 1
    assert "unmetered" in told[0]


def test_init_patches_and_shutdown_takes_it_off():
    """``propagate_threads`` lasts from ``init`` to ``shutdown``, over a second ``init`` too."""
    original = vars(threading.Thread)["start"]
    for options in ({"propagate_threads": True}, {"propagate_threads": True}):
        pg = Paygent.init(ledger="memory://", **options)
        assert vars(threading.Thread)["start"] is not original
    Paygent.init(ledger="memory://").shutdown()
    assert vars(threading.Thread)["start"] is original
    pg.shutdown()


def test_elsewhere_there_is_no_hint():
    """The main thread, and an event loop in whatever thread, lose no context."""

    async def in_loop():
        return hint()

    found = []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(in_loop())))
    thread.start()
    thread.join()
    assert (hint(), found) == (None, [None])


def test_a_request_without_a_user_gets_no_hint():
    """Where there is a context, and nobody in it, the thread is not to blame."""
    found = []

    def work():
        with as_payer(Payer(None)):
            found.append(hint())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [None]
