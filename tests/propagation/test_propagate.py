"""``paygent.propagate``: the payer goes with the function, and with nothing else."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from paygent import paygent_context, paygent_exempt
from paygent.context import Payer, as_payer, current_payer
from paygent.propagation import propagate


def user():
    payer = current_payer()
    return None if payer is None else payer.user_id


def in_thread(function, *args):
    """Run *function* in a new thread, and return its result."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function(*args)))
    thread.start()
    thread.join()
    return results[0]


def test_a_call_in_a_thread_is_the_users(ask, posted):
    """An LLM call that a thread makes through ``propagate`` is charged to the user of the block."""
    with paygent_context("ann"):
        carried = propagate(ask)
    assert in_thread(carried) == "Hello"
    assert posted == ["ann"]


def test_session_plan_and_metadata_go_along():
    """The thread sees the very payer of the block."""
    with paygent_context("ann", "s1", "pro", {"feature": "chat"}):
        payer = current_payer()
        assert in_thread(propagate(current_payer)) is payer


def test_an_exempt_block_is_exempt_in_the_thread_too(ask, posted):
    """What is exempt where it is handed over is exempt where it runs."""
    with paygent_exempt():
        carried = propagate(ask)
    in_thread(carried)
    assert posted == []


def test_a_user_found_later_is_found_by_the_thread():
    """A request's user may log in after the work was handed over: all see one payer."""
    payer = Payer(None)
    with as_payer(payer):
        carried = propagate(user)
    payer.user_id = "ann"
    assert in_thread(carried) == "ann"


def test_nothing_stays_in_a_pools_thread():
    """A pool's thread belongs to nobody again after the task."""
    with ThreadPoolExecutor(1) as pool:
        with paygent_context("ann"):
            assert pool.submit(propagate(user)).result() == "ann"
        assert pool.submit(user).result() is None


def test_many_threads_may_run_one_function_at_once():
    """One propagated function serves ``pool.map``, for all its tasks at once."""
    barrier = threading.Barrier(4, timeout=60)

    def both(_):
        barrier.wait()
        return user()

    with ThreadPoolExecutor(4) as pool, paygent_context("ann"):
        assert list(pool.map(propagate(both), range(4))) == ["ann"] * 4


def test_in_another_block_the_function_is_still_its_own_users():
    """The user is the one of the moment of handing over, wherever the function is called."""
    with paygent_context("ann"):
        carried = propagate(user)
    with paygent_context("ben"):
        assert carried() == "ann"
        assert user() == "ben"


def test_where_nobody_pays_the_function_comes_back():
    """Outside of a context there is nothing to carry, and nobody is carried instead of somebody."""
    assert propagate(user) is user


def test_errors_pass_through():
    """An error of the function is the caller's, and the payer is gone."""
    with paygent_context("ann"):
        carried = propagate(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        carried()
    assert user() is None


def test_coroutines_and_generators_carry_their_user():
    """Async functions and generators run step by step for the user."""

    async def later():
        await asyncio.sleep(0)
        return user()

    def steps():
        yield user()

    async def many():
        yield user()

    async def first(generator):
        return await anext(generator)

    with paygent_context("ann"):
        carried = propagate(later), propagate(steps), propagate(many)
    assert asyncio.run(carried[0]()) == "ann"
    assert list(carried[1]()) == ["ann"]
    assert asyncio.run(first(carried[2]())) == "ann"


def test_what_is_no_function_is_refused():
    """The result of a call is no function: the message says what to write."""
    with pytest.raises(TypeError, match=r"propagate\(fn\), not fn\(\)"):
        propagate("done")
