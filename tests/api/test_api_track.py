"""``pg.track`` and ``paygent_track`` on every kind of function."""

from __future__ import annotations

import asyncio
import functools
import inspect

import pytest

from paygent import paygent_context, paygent_track
from paygent.context import current_payer


def who():
    payer = current_payer()
    return payer.user_id if payer is not None else None


class Service:
    @paygent_track(user_id_param="uid")
    def plain(self, uid, query="q"):
        return who()

    @paygent_track(user_id_param="uid")
    async def coroutine(self, uid, query="q"):
        return who()

    @paygent_track(user_id_param="uid")
    def generator(self, uid, query="q"):
        yield who()

    @paygent_track(user_id_param="uid")
    async def async_generator(self, uid, query="q"):
        yield who()

    @staticmethod
    @paygent_track(user_id_param="uid")
    def static(uid, query="q"):
        return who()

    @classmethod
    @paygent_track(user_id_param="uid")
    def of_class(cls, uid, query="q"):
        return who()


async def outcome(result):
    """Return what a function of any kind gave."""
    if inspect.isasyncgen(result):
        return await result.__anext__()
    if inspect.isgenerator(result):
        return next(result)
    return await result if inspect.isawaitable(result) else result


KINDS = ["plain", "coroutine", "generator", "async_generator", "static", "of_class"]


@pytest.mark.parametrize("kind", KINDS)
async def test_the_user_is_taken_from_a_positional_argument(kind):
    """``user_id_param`` names the argument, wherever it stands."""
    assert await outcome(getattr(Service(), kind)("ann", "hello")) == "ann"


@pytest.mark.parametrize("kind", KINDS)
async def test_the_user_is_taken_from_a_keyword(kind):
    """``user_id_param`` names the argument, also where it is passed by its name."""
    assert await outcome(getattr(Service(), kind)(query="hello", uid="ann")) == "ann"


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_leaks_to_the_caller(kind):
    """After each step the caller is nobody again."""
    result = getattr(Service(), kind)("ann")
    if inspect.isgenerator(result):
        next(result)
        assert who() is None
    else:
        await outcome(result)
    assert who() is None


@pytest.mark.parametrize(
    "kind, asked",
    [
        ("coroutine", inspect.iscoroutinefunction),
        ("generator", inspect.isgeneratorfunction),
        ("async_generator", inspect.isasyncgenfunction),
    ],
)
def test_a_decorated_function_stays_what_it_was(kind, asked):
    """Frameworks ask ``inspect`` how to call a function: the answer does not change."""
    assert asked(getattr(Service, kind))
    assert not asked(Service.plain)


@pytest.mark.parametrize("kind", ["plain", "coroutine", "generator", "async_generator"])
def test_a_decorated_function_keeps_name_and_signature(kind):
    """Dependency injection reads the signature of the function that was decorated."""
    decorated = getattr(Service, kind)
    assert decorated.__name__ == kind
    assert list(inspect.signature(decorated).parameters) == ["self", "uid", "query"]


def test_a_default_value_names_the_user():
    """An argument that the caller leaves out has its default."""

    @paygent_track(user_id_param="uid")
    def handle(query, uid="guest"):
        return who()

    assert handle("hello") == "guest"


def test_the_user_may_be_among_keyword_arguments():
    """A function that takes any keyword may be told the user by one."""

    @paygent_track(user_id_param="uid")
    def handle(**options):
        return who()

    assert handle(uid="ann") == "ann"


def test_a_fixed_user(pg):
    """``pg.track(user_id=)`` attributes every call of the function, with session, plan and metadata."""

    @pg.track(user_id="ann", session_id="s", plan="pro", metadata={"a": 1})
    def handle():
        payer = current_payer()
        return payer.user_id, payer.session_id, payer.plan, payer.metadata

    assert handle() == ("ann", "s", "pro", {"a": 1})


def test_the_context_around_is_restored():
    """A decorated function called within a context leaves that context as it was."""

    @paygent_track(user_id="inner")
    def handle():
        return who()

    with paygent_context("outer"):
        assert handle() == "inner"
        assert who() == "outer"


def test_a_generator_keeps_send_throw_and_its_return_value():
    """The wrapper hands values, errors and the result through, as ``yield from`` does."""
    seen = []

    @paygent_track(user_id="ann")
    def handle():
        try:
            seen.append((yield 1))
            yield 2
        except KeyError:
            seen.append(who())
        return "done"

    def outer():
        seen.append((yield from handle()))

    steps = outer()
    assert next(steps) == 1
    assert steps.send("sent") == 2
    with pytest.raises(StopIteration):
        steps.throw(KeyError())
    assert seen == ["sent", "ann", "done"]


async def test_closing_an_async_generator_runs_its_cleanup_as_the_user():
    """``aclose`` reaches the function's own ``finally``, under the payer."""
    seen = []

    @paygent_track(user_id="ann")
    async def handle():
        try:
            yield 1
        finally:
            seen.append(who())

    steps = handle()
    await steps.__anext__()
    await steps.aclose()
    assert seen == ["ann"]
    assert who() is None


def test_a_partial_can_be_decorated():
    """Anything callable is decorated, also without a name of its own."""

    def handle(uid, query):
        return who()

    assert paygent_track(user_id_param="uid")(functools.partial(handle, query="x"))("ann") == "ann"


@pytest.mark.parametrize(
    "arguments", [{}, {"user_id": "ann", "user_id_param": "uid"}], ids=["neither", "both"]
)
def test_a_decorator_needs_one_source_of_the_user(arguments):
    """Neither or both is refused when decorating, not at the first call."""
    with pytest.raises(ValueError, match="either user_id or user_id_param"):
        paygent_track(**arguments)


def test_an_unknown_parameter_is_refused_when_decorating():
    """A misspelt ``user_id_param`` is found at import time, and named with the function."""
    with pytest.raises(TypeError, match=r"handle\(\) has no parameter named 'user'"):

        @paygent_track(user_id_param="user")
        def handle(uid):
            return uid


def test_something_else_is_not_decorated():
    """Forgetting the parentheses' content shows at once."""
    with pytest.raises(TypeError, match="decorates functions, not str"):
        paygent_track(user_id="ann")("text")


def test_a_block_left_in_another_context_raises_nothing():
    """An async generator closed by somebody else must not fail because of the block in it."""
    import contextvars

    block = paygent_context("ann")
    contextvars.copy_context().run(block.__enter__)
    assert block.__exit__(None, None, None) is not True
    assert who() is None


async def test_a_context_is_inherited_by_tasks_and_threads():
    """Tasks and ``asyncio.to_thread`` made within the block belong to its user."""

    async def in_task():
        return who()

    with paygent_context("ann"):
        assert await asyncio.create_task(in_task()) == "ann"
        assert await asyncio.to_thread(who) == "ann"
    assert who() is None


async def test_tasks_do_not_see_each_others_users():
    """Two requests on one loop stay apart, whatever their order."""

    async def request(user_id):
        with paygent_context(user_id):
            await asyncio.sleep(0)
            return who()

    assert await asyncio.gather(*map(request, "abc")) == ["a", "b", "c"]


def test_contexts_nest():
    """The innermost block names the user, and the outer one is back after it."""
    with paygent_context("outer"):
        with paygent_context("inner"):
            assert who() == "inner"
        assert who() == "outer"
