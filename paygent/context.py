"""Who pays: the context that attributes each LLM call to a user."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

USER_ID_LENGTH_MAX = 512

F = TypeVar("F", bound=Callable[..., Any])


class Payer:
    """
    Who pays for the calls of one block.

    One object per block, shared by every thread and task that inherits the block: what is resolved late
    (``user_id`` through ``resolve``) is seen by all of them. ``exempt`` lets calls pass unmetered;
    ``metered`` says that an enclosing bracket already counts what happens inside, and ``reports_only`` that a
    closed gate is reported and the call runs all the same.
    """

    __slots__ = ("user_id", "session_id", "plan", "metadata", "exempt", "metered", "resolve", "reports_only")

    def __init__(
        self,
        user_id: str | None,
        session_id: str | None = None,
        plan: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        exempt: bool = False,
        metered: bool = False,
        resolve: Callable[[], str | None] | None = None,
    ) -> None:
        self.user_id = user_id
        self.session_id = session_id
        self.plan = plan
        self.metadata = metadata
        self.exempt = exempt
        self.metered = metered
        self.resolve = resolve
        self.reports_only = False


_payer: ContextVar[Payer | None] = ContextVar("paygent_payer", default=None)

current_payer = _payer.get
set_payer = _payer.set
reset_payer = _payer.reset


def checked_user_id(user_id: object) -> str | None:
    """
    Return *user_id* as text, or ``None`` for nobody (``None`` and the empty string).

    Raises:
        ValueError: Longer than 512 characters, or text that no encoding can store (a lone surrogate).
        TypeError: Neither text nor a number.
    """
    return _checked_text(user_id, "user_id")


def checked_session_id(session_id: object) -> str | None:
    """Return *session_id* as text under the rules of :func:`checked_user_id`."""
    return _checked_text(session_id, "session_id")


def _checked_text(value: object, field: str) -> str | None:
    if value is None:
        return None
    if type(value) is not str and (isinstance(value, bool) or not isinstance(value, (str, int, float))):
        text = str(value) if _is_identifier(value) else None
        if text is None:
            raise TypeError(f"{field} must be text or a number, not {type(value).__name__}")
    else:
        text = value if type(value) is str else str(value)
    if len(text) > USER_ID_LENGTH_MAX:
        raise ValueError(
            f"{field} must have at most {USER_ID_LENGTH_MAX} characters, this one has {len(text)}"
        )
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{field} holds a lone surrogate, which no encoding can store") from error
    return text or None


def _is_identifier(value: object) -> bool:
    """UUIDs and the like: hashable values that are their text."""
    return type(value).__module__ in ("uuid", "decimal", "bson.objectid")


@contextmanager
def paygent_context(
    user_id: str,
    session_id: str | None = None,
    plan: str | None = None,
    metadata: dict[str, Any] | None = None,
) -> Iterator[None]:
    """
    Attribute every LLM call within the block to *user_id*.

    Raises:
        ValueError: *user_id* or *session_id* is too long or not encodable.
    """
    payer = Payer(checked_user_id(user_id), checked_session_id(session_id), plan, metadata)
    token = _payer.set(payer)
    try:
        yield
    finally:
        _payer.reset(token)


@contextmanager
def paygent_exempt() -> Iterator[None]:
    """Let every LLM call within the block pass unmetered and ungated: system work, a customer's own key."""
    token = _payer.set(Payer(None, exempt=True))
    try:
        yield
    finally:
        _payer.reset(token)


def paygent_track(
    user_id: str | None = None,
    session_id: str | None = None,
    plan: str | None = None,
    metadata: dict[str, Any] | None = None,
    *,
    user_id_param: str | None = None,
) -> Callable[[F], F]:
    """
    Decorate a function so that it runs in :func:`paygent_context`.

    Works on functions and methods of any kind: plain, async, generator and async generator. The user is
    either fixed (*user_id*) or taken from the argument named *user_id_param*, positional or by keyword.

    Raises:
        ValueError: Neither or both of *user_id* and *user_id_param* are given (when decorating).
        TypeError: The function has no parameter named *user_id_param* (when decorating).
    """
    if (user_id is None) == (user_id_param is None):
        raise ValueError("give either user_id or user_id_param")
    checked_user_id(user_id)

    def decorate(function: F) -> F:
        find_user = _user_finder(function, user_id, user_id_param)

        def payer_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Payer:
            return Payer(
                checked_user_id(find_user(args, kwargs)), checked_session_id(session_id), plan, metadata
            )

        return _in_context(function, payer_of)

    return decorate


def _user_finder(
    function: Callable[..., Any], user_id: str | None, user_id_param: str | None
) -> Callable[[tuple[Any, ...], dict[str, Any]], Any]:
    if user_id_param is None:
        return lambda args, kwargs: user_id
    signature = inspect.signature(function)
    parameter = signature.parameters.get(user_id_param)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    if parameter is None and not takes_any:
        raise TypeError(f"{function.__qualname__}() has no parameter named {user_id_param!r}")

    def find(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if user_id_param in kwargs:
            return kwargs[user_id_param]
        bound = signature.bind_partial(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments.get(user_id_param)

    return find


@contextmanager
def as_payer(payer: Payer | None) -> Iterator[None]:
    """Run one step under *payer*; restores by value, so that a step may end in another context than it began."""
    previous = _payer.get()
    _payer.set(payer)
    try:
        yield
    finally:
        _payer.set(previous)


def _in_context(function: F, payer_of: Callable[[tuple[Any, ...], dict[str, Any]], Payer]) -> F:
    """Wrap *function* of any kind so that its body, and nothing else, runs under the payer."""
    wrapper: Any
    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return _async_steps(function(*args, **kwargs), payer_of(args, kwargs))

    elif inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return _steps(function(*args, **kwargs), payer_of(args, kwargs))

    elif inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            with as_payer(payer_of(args, kwargs)):
                return await function(*args, **kwargs)

    else:

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with as_payer(payer_of(args, kwargs)):
                return function(*args, **kwargs)

    return wrapper  # type: ignore[no-any-return]  # functools.wraps keeps the signature


def _steps(generator: Generator[Any, Any, Any], payer: Payer) -> Generator[Any, Any, Any]:
    """Drive *generator* under the payer, entered and left around every step: nothing leaks to the consumer."""
    advance: Callable[[Any], Any] = generator.send
    argument: Any = None
    while True:
        try:
            with as_payer(payer):
                item = advance(argument)
        except StopIteration as stop:
            return stop.value
        try:
            argument = yield item
            advance = generator.send
        except GeneratorExit:
            with as_payer(payer):
                generator.close()
            raise
        except BaseException as error:  # noqa: BLE001  # handed on to the generator, as the language does
            advance, argument = generator.throw, error


async def _async_steps(generator: AsyncGenerator[Any, Any], payer: Payer) -> AsyncGenerator[Any, Any]:
    """The asynchronous twin of :func:`_steps`."""
    advance: Callable[[Any], Any] = generator.asend
    argument: Any = None
    while True:
        try:
            with as_payer(payer):
                item = await advance(argument)
        except StopAsyncIteration:
            return
        try:
            argument = yield item
            advance = generator.asend
        except GeneratorExit:
            with as_payer(payer):
                await generator.aclose()
            raise
        except BaseException as error:  # noqa: BLE001  # handed on to the generator, as the language does
            advance, argument = generator.athrow, error
