"""Who pays: the context that attributes each LLM call to a user."""

from __future__ import annotations

import functools
import inspect
import numbers
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Any, Protocol, TypeVar

from paygent.core.bounds import ID_LENGTH_MAX, ID_STORED_MAX, stored_length

_IDENTIFIERS = frozenset(("uuid", "bson.objectid"))  # types that are their text

F = TypeVar("F", bound=Callable[..., Any])


class Tally(Protocol):
    """Hears of the calls of one web request; it counts, and never locks, waits or raises."""

    def admitted(self) -> None:
        """A call of the request passed the gate."""

    def refused(self, error: Any) -> None:
        """A call of the request is about to be refused with *error*."""

    def posted(self, cost_nusd: int, tokens: int, soft: Any) -> None:
        """A call of the request is settled; *soft* is the purse at its soft mark, or ``None``."""


class Payer:
    """
    Who pays for the calls of one block.

    One object per block, shared by every thread and task that inherits the block: what is resolved late
    (``user_id`` through ``resolve``) is seen by all of them. ``exempt`` lets calls pass unmetered;
    ``metered`` says that an enclosing bracket already counts what happens inside, and ``reports_only`` that a
    closed gate is reported and the call runs all the same. ``tally`` is told of each call.
    """

    # Awaited before an asynchronous call, where a subclass can find the user only so; then it forgets itself.
    identify: Callable[[], Awaitable[None]] | None = None

    __slots__ = (
        "user_id", "session_id", "plan", "metadata", "exempt", "metered", "resolve", "reports_only", "tally",
    )  # fmt: skip

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
        self.tally: Tally | None = None

    def within(self, outer: Payer | None) -> Payer:
        """Take over what is true of the block around, whoever pays: its tally, whether it only reports."""
        if outer is not None:
            self.reports_only, self.tally = outer.reports_only, outer.tally
        return self


_payer: ContextVar[Payer | None] = ContextVar("paygent_payer", default=None)

current_payer = _payer.get
set_payer = _payer.set


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


def checked_metadata(metadata: object) -> Mapping[str, Any] | None:
    """
    Return *metadata* as it is.

    Raises:
        TypeError: It is no mapping.
    """
    if metadata is None or isinstance(metadata, Mapping):
        return metadata
    raise TypeError(f"metadata must be a dict, not {type(metadata).__name__}")


def _checked_text(value: object, field: str) -> str | None:
    text = value if type(value) is str else _as_text(value, field)
    if not text:
        return None
    if len(text) > ID_LENGTH_MAX:
        raise ValueError(f"{field} must have at most {ID_LENGTH_MAX} characters, this one has {len(text)}")
    if len(text) > ID_STORED_MAX // 2 and stored_length(text) > ID_STORED_MAX:
        raise ValueError(f"{field} holds more NULs than a database can store")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{field} holds a lone surrogate, which no encoding can store") from error
    return text


def _as_text(value: object, field: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return str.__str__(value)  # the text itself: enumerations and markup types print something else
    if isinstance(value, numbers.Number) and not isinstance(value, bool):
        return str(value)
    if type(value).__module__ in _IDENTIFIERS:
        return str(value)
    raise TypeError(f"{field} must be text or a number, not {type(value).__name__}")


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
        TypeError: One of them is neither text nor a number, or *metadata* is no dict.
    """
    user, session = checked_user_id(user_id), checked_session_id(session_id)
    token = _payer.set(_payer_within(user, session, plan, checked_metadata(metadata)))
    try:
        yield
    finally:
        _leave(token)


def _payer_within(
    user_id: str | None, session_id: str | None, plan: str | None, metadata: Mapping[str, Any] | None
) -> Payer:
    """Who pays in a block that begins here: its own user, in whatever request is around it."""
    return Payer(user_id, session_id, plan, metadata).within(_payer.get())


@contextmanager
def paygent_exempt() -> Iterator[None]:
    """Let every LLM call within the block pass unmetered and ungated: system work, a customer's own key."""
    token = _payer.set(Payer(None, exempt=True))
    try:
        yield
    finally:
        _leave(token)


def _leave(token: Token[Payer | None]) -> None:
    """
    End a block.

    A block within an async generator may be left in another context than it was entered in (closed by the
    garbage collector, or by another task): there is nothing to restore there.
    """
    try:
        _payer.reset(token)
    except ValueError:
        return


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
        ValueError: Neither or both of *user_id* and *user_id_param* are given, or a value that
            :func:`paygent_context` refuses (when decorating).
        TypeError: The function has no parameter named *user_id_param* (when decorating).
    """
    if (user_id is None) == (user_id_param is None):
        raise ValueError("give either user_id or user_id_param")
    fixed_user, session = checked_user_id(user_id), checked_session_id(session_id)
    checked_metadata(metadata)

    def decorate(function: F) -> F:
        if not callable(function):
            raise TypeError(f"paygent_track() decorates functions, not {type(function).__name__}")
        if user_id_param is None:
            return in_context(
                function, lambda args, kwargs: _payer_within(fixed_user, session, plan, metadata)
            )
        find_user = _user_finder(function, user_id_param)
        return in_context(
            function, lambda args, kwargs: _payer_within(find_user(args, kwargs), session, plan, metadata)
        )

    return decorate


def _user_finder(
    function: Callable[..., Any], user_id_param: str
) -> Callable[[tuple[Any, ...], dict[str, Any]], str | None]:
    signature = inspect.signature(function)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    if user_id_param not in signature.parameters and not takes_any:
        name = getattr(function, "__qualname__", repr(function))
        raise TypeError(f"{name}() has no parameter named {user_id_param!r}")

    def find(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        if user_id_param in kwargs:
            return checked_user_id(kwargs[user_id_param])
        bound = signature.bind_partial(*args, **kwargs)
        bound.apply_defaults()
        return checked_user_id(bound.arguments.get(user_id_param))

    return find


class as_payer:  # noqa: N801  # reads like the statement it is; a class, as it is entered on every call
    """Run a step under *payer*; one that the collector ends, in some other context, changes nothing there."""

    __slots__ = ("_now", "_token")

    def __init__(self, payer: Payer | None) -> None:
        self._now = payer

    def __enter__(self) -> None:
        self._token = _payer.set(self._now)

    def __exit__(self, *error: object) -> None:
        _leave(self._token)


PayerOf = Callable[[tuple[Any, ...], dict[str, Any]], Payer]


def in_context(function: F, payer_of: PayerOf) -> F:
    """Wrap *function*, as the kind that it is: its body, and nothing else, runs under the payer."""
    wrapper: Any
    if inspect.isasyncgenfunction(function):
        wrapper = _async_generator(function, payer_of)
    elif inspect.isgeneratorfunction(function):
        wrapper = _generator(function, payer_of)
    elif inspect.iscoroutinefunction(function):

        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            with as_payer(payer_of(args, kwargs)):
                return await function(*args, **kwargs)

    else:

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with as_payer(payer_of(args, kwargs)):
                return function(*args, **kwargs)

    return functools.wraps(function)(wrapper)  # type: ignore[return-value]  # wraps keeps the signature


def _generator(function: Callable[..., Any], payer_of: PayerOf) -> Callable[..., Any]:
    """Enter and leave the payer around every step: nothing leaks to whoever consumes the generator."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        payer, generator = payer_of(args, kwargs), function(*args, **kwargs)
        advance: Callable[[Any], Any] = generator.send
        argument: Any = None
        while True:
            try:
                with as_payer(payer):
                    item = advance(argument)
            except StopIteration as stop:
                return stop.value
            try:
                argument, advance = (yield item), generator.send
            except GeneratorExit:
                with as_payer(payer):
                    generator.close()
                raise
            except BaseException as error:  # noqa: BLE001  # handed on, as ``yield from`` does
                argument, advance = error, generator.throw

    return wrapper


def _async_generator(function: Callable[..., Any], payer_of: PayerOf) -> Callable[..., Any]:
    """The asynchronous twin of :func:`_generator`."""

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        payer, generator = payer_of(args, kwargs), function(*args, **kwargs)
        advance: Callable[[Any], Any] = generator.asend
        argument: Any = None
        while True:
            try:
                with as_payer(payer):
                    item = await advance(argument)
            except StopAsyncIteration:
                return
            try:
                argument, advance = (yield item), generator.asend
            except GeneratorExit:
                with as_payer(payer):
                    await generator.aclose()
                raise
            except BaseException as error:  # noqa: BLE001  # handed on, as ``yield from`` does
                argument, advance = error, generator.athrow

    return wrapper
