"""One cap for everybody: a plan for a hundred calls admits a hundred, whoever makes them."""

import asyncio
import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from engine_values import ANSWER, CENT, EXACT, call, plan

from paygent import Paygent, PaygentLimitExceeded
from paygent.ledgers.sqlite import SqliteLedger

CALLS = 100
spawned = multiprocessing.get_context("spawn")


def capped(*, exact):
    """A plan for a hundred calls; without pre_call_estimate the last cent may be passed by one call."""
    return plan(CALLS) if exact else plan(CALLS, max_spend_per_period=CALLS / 100, pre_call_estimate=False)


def until_refused(pg, **changes):
    """Call until the plan is spent; returns how many calls were made. Busy is no reason to stop."""
    made = 0
    while made <= CALLS:
        try:
            call(pg, **changes)
            made += 1
        except PaygentLimitExceeded as refused:
            if not refused.retryable:
                return made
    return made


def assert_capped(made, *, exact):
    assert made >= CALLS
    assert made <= CALLS + (not exact)


@pytest.mark.parametrize("ledger", ["memory", "sqlite"])
@pytest.mark.parametrize("exact", [True, False])
def test_threads_share_one_cap(init, ledger, exact):
    """Thirty-two threads of one user make as many calls as the plan covers, and all of them are posted."""
    pg = init(**({"ledger": "memory://"} if ledger == "memory" else {}))
    pg.configure_plan("default", capped(exact=exact))
    with ThreadPoolExecutor(32) as threads:
        made = sum(threads.map(lambda _: until_refused(pg), range(32)))
    pg.flush()
    assert_capped(made, exact=exact)
    assert round(pg.get_usage("ada").period_cost * 100) == made


@pytest.mark.parametrize("exact", [True, False])
async def test_tasks_share_one_cap(init, exact):
    """Thirty-two tasks of one loop make as many calls as the plan covers."""
    pg = init()
    pg.configure_plan("default", capped(exact=exact))

    async def answer():
        await asyncio.sleep(0)
        return ANSWER

    async def run():
        made = 0
        while made <= CALLS:
            try:
                await pg.awrap(
                    answer(),
                    user_id="ada",
                    **EXACT,
                )
                made += 1
            except PaygentLimitExceeded as refused:
                if not refused.retryable:
                    break
        return made

    assert_capped(sum(await asyncio.gather(*(run() for _ in range(32)))), exact=exact)


def _run_threads(path, barrier, results, exact):
    pg = Paygent.init(db_path=path, auto_instrument=False)
    pg.configure_plan("default", capped(exact=exact))
    barrier.wait(60)
    with ThreadPoolExecutor(8) as threads:
        made = sum(threads.map(lambda _: until_refused(pg), range(8)))
    stats = pg.queue_stats
    pg.shutdown()
    results.put((made, stats["dropped"]))


@pytest.mark.parametrize("exact", [True, False])
def test_processes_share_one_cap(tmp_path, exact):
    """Four processes with eight threads each make the calls that the plan covers; the ledger has them all."""
    path = tmp_path / "p.db"
    barrier, results = spawned.Barrier(4), spawned.Queue()
    processes = [spawned.Process(target=_run_threads, args=(path, barrier, results, exact)) for _ in range(4)]
    for process in processes:
        process.start()
    made = [results.get(timeout=100) for _ in processes]
    for process in processes:
        process.join(30)
    ledger = SqliteLedger(path)
    events = ledger.events(limit=1000)
    ledger.close()
    assert_capped(sum(count for count, _ in made), exact=exact)
    assert len(events) == sum(count for count, _ in made)
    assert sum(row.cost_nusd for row in events) == len(events) * CENT
    assert not list((tmp_path / "p.db.journals").glob("*.journal"))


def test_sessions_and_models_are_capped_too(init):
    """The cap on a session and on a model's tokens hold under threads as that on the period does."""
    pg = init(ledger="memory://")
    pg.configure_plan("s", plan(10_000, max_spend_per_session=0.5 + 1e-9))
    pg.configure_plan("m", plan(10_000, model_limits={"m": {"max_tokens_per_period": 300}}))
    pg.assign_plan("ada", "s")
    pg.assign_plan("bob", "m")
    with ThreadPoolExecutor(16) as threads:
        ada = sum(threads.map(lambda _: until_refused(pg, user="ada"), range(8)))
        bob = sum(threads.map(lambda _: until_refused(pg, user="bob"), range(8)))
    assert (ada, bob) == (50, 30)


def test_users_do_not_wait_for_each_other(init):
    """A user whose call is in flight for long holds up no other user's."""
    pg = init()
    pg.configure_plan("default", plan(1))
    inside, leave = threading.Event(), threading.Event()

    def slow():
        inside.set()
        leave.wait(30)
        return ANSWER

    thread = threading.Thread(target=lambda: pg.wrap(slow, user_id="ada", **EXACT))
    thread.start()
    assert inside.wait(30)
    call(pg, "bob")
    leave.set()
    thread.join(30)
    pg.flush()
    assert [round(pg.get_usage(user).period_cost * 100) for user in ("ada", "bob")] == [1, 1]


def test_a_busy_call_waits_and_goes_on(init):
    """A call that only another one in flight stands in the way of is made when that one cost less."""
    pg = init()
    pg.configure_plan("default", plan(2))
    inside, leave = threading.Event(), threading.Event()

    def cheap():
        inside.set()
        leave.wait(30)
        return {**ANSWER, "usage": {"prompt_tokens": 10, "completion_tokens": 0}}

    thread = threading.Thread(
        target=lambda: pg.wrap(cheap, user_id="ada", **{**EXACT, "estimated_max_tokens": 19})
    )
    thread.start()
    assert inside.wait(30)
    waiting = threading.Thread(target=lambda: call(pg))
    waiting.start()
    leave.set()
    thread.join(30)
    waiting.join(30)
    pg.flush()
    assert round(pg.get_usage("ada").period_cost * 100) == 2


def test_a_busy_call_is_refused_in_the_end(init):
    """A call that waited as long as it may is refused as busy, which says that trying again helps."""
    pg = init(busy_timeout=0.05)
    pg.configure_plan("default", plan(1))

    def nested():
        return call(pg)

    def other_thread():
        with ThreadPoolExecutor(1) as threads:
            return threads.submit(nested).exception()

    refusals = []
    pg.wrap(
        lambda: refusals.append(other_thread()) or ANSWER,
        user_id="ada",
        **EXACT,
    )
    assert [type(refusal) for refusal in refusals] == [PaygentLimitExceeded]
    assert refusals[0].retryable
