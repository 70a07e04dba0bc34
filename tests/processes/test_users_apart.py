"""Two hundred users at once, on threads, tasks and threads that are used again: each pays his own calls."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from fleet import ANSWER, Books, plan, request

from paygent import paygent_context
from paygent.testing.transport import stub_http_client

USERS, CALLS = 200, 4


def billed_by_name(method, target, headers, body):
    """An answer whose length is the number of the user that the request names: who pays it can be told."""
    number = int(json.loads(body)["user"])
    return {**ANSWER, "usage": {"prompt_tokens": 1, "completion_tokens": number, "total_tokens": number + 1}}


def sdk(*, is_async=False):
    kind = openai.AsyncOpenAI if is_async else openai.OpenAI
    http = stub_http_client("openai", is_async=is_async, respond=billed_by_name)
    return kind(api_key="any", base_url="http://llm.invalid", http_client=http, max_retries=0)


def calls_in_disorder():
    calls = [number for number in range(USERS) for _ in range(CALLS)]
    random.Random(0).shuffle(calls)
    return calls


def check(path):
    """Each user has his own calls only, at his own lengths."""
    rows = Books(path).rows
    assert len(rows) == USERS * CALLS
    assert all(row.user_id == f"user-{row.output_tokens}" for row in rows)


@pytest.fixture
def pg(init):
    pg = init(busy_timeout=60)  # however slow the machine: two hundred first calls come at once
    pg.configure_plan("default", plan(1_000_000))
    return pg


def one_call(client, number):
    with paygent_context(f"user-{number}"):
        client.chat.completions.create(**request(user=str(number)))


def test_on_a_thread_of_his_own_each_user_pays_his_calls(pg, path):
    """Two hundred threads, each of one user, charge nobody else."""
    client = sdk()

    def live(number):
        for _ in range(CALLS):
            one_call(client, number)

    threads = [threading.Thread(target=live, args=(number,)) for number in range(USERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    pg.shutdown()
    check(path)


def test_on_threads_that_are_used_again_nobody_pays_for_the_one_before(pg, path):
    """Eight threads that serve two hundred users in disorder, some of whose requests break, mix nobody up."""
    client = sdk()

    def serve(number):
        try:
            one_call(client, number)
            with paygent_context("nobody"):
                raise RuntimeError("the request breaks after its call")
        except RuntimeError:
            return

    with ThreadPoolExecutor(8) as workers:
        list(workers.map(serve, calls_in_disorder()))
    pg.shutdown()
    check(path)


async def test_on_tasks_of_one_loop_each_user_pays_his_calls(pg, path):
    """Tasks that give way to each other in mid-request charge nobody else, nor do tasks that they start."""
    client = sdk(is_async=True)

    async def call(number):
        await client.chat.completions.create(**request(user=str(number)))

    async def serve(number):
        with paygent_context(f"user-{number}"):
            child = asyncio.create_task(call(number))  # it inherits whose request it belongs to
            await asyncio.sleep(0)
            await call(number)
            await child

    order = [number for number in range(USERS) for _ in range(CALLS // 2)]
    random.Random(0).shuffle(order)
    await asyncio.gather(*map(serve, order))
    pg.shutdown()
    check(path)
