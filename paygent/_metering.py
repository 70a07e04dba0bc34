"""The metering half of the public object: explicit brackets, the decorator, manual events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from paygent._shelter import Sheltered
from paygent.context import (
    Payer,
    as_payer,
    checked_metadata,
    checked_session_id,
    checked_user_id,
    current_payer,
    paygent_track,
)
from paygent.core.errors import VISIBLE
from paygent.core.events import to_model
from paygent.core.models import UsageEvent
from paygent.core.usage import Usage
from paygent.instrumentation import ProviderRegistry
from paygent.meter import accounts
from paygent.meter.call import Call
from paygent.meter.meter import Meter

F = TypeVar("F", bound=Callable[..., Any])


class Metering:
    """What :class:`paygent.Paygent` meters by itself, without a patched SDK."""

    def __init__(self, meter: Meter, registry: ProviderRegistry) -> None:
        self._meter = meter
        self._registry = registry
        self._recorder = accounts.Recorder(meter)

    def wrap(
        self,
        call: Callable[[], Any],
        *,
        user_id: str,
        model: str | None = None,
        session_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        provider: str | None = None,
        estimated_input_tokens: int | None = None,
        estimated_max_tokens: int | None = None,
    ) -> Any:
        """
        Meter one call explicitly.

        What happens inside is counted once, by the outermost bracket; within ``paygent_exempt`` not at all.

        Args:
            call: Makes the provider call; its result is returned as it is, a stream included.

        Raises:
            PaygentLimitExceeded: The plan does not cover the call; it was not made.
            ValueError: *provider* is unknown, an estimate is negative, or *user_id* cannot be stored.
        """
        payer = self._payer(user_id, session_id, metadata, provider)
        bracket = self._bracket(payer, model, provider, estimated_input_tokens, estimated_max_tokens)
        if bracket is None:
            return call()
        with bracket:
            with as_payer(payer):
                result = call()
            self._receive(bracket, result, provider)
        return result

    async def awrap(
        self,
        call: Awaitable[Any],
        *,
        user_id: str,
        model: str | None = None,
        session_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        provider: str | None = None,
        estimated_input_tokens: int | None = None,
        estimated_max_tokens: int | None = None,
    ) -> Any:
        """Meter one awaitable; a refused one is closed, never awaited. See :meth:`wrap`."""
        try:
            payer = self._payer(user_id, session_id, metadata, provider)
            bracket = self._bracket(payer, model, provider, estimated_input_tokens, estimated_max_tokens)
            if bracket is None:
                return await call
            async with bracket:
                with as_payer(payer):
                    result = await call
                self._receive(bracket, result, provider)
        except BaseException:
            _close(call)
            raise
        return result

    def _payer(self, user_id: object, session_id: object, metadata: object, provider: str | None) -> Payer:
        if provider is not None:
            self._registry.get(provider)
        user = checked_user_id(user_id)
        session = None if session_id is None else checked_session_id(session_id)
        payer = Payer(user, session, None, None if metadata is None else checked_metadata(metadata))
        context = current_payer()
        return payer if context is None else payer.within(context)

    def _bracket(
        self, payer: Payer, model: str | None, provider: str | None, given: int | None, most: int | None
    ) -> Call | None:
        """The bracket around an explicit call; ``None``: it passes unmetered, or is counted further out."""
        if given is not None:
            accounts.checked_tokens("estimated_input_tokens", given)
        if most is not None:
            accounts.checked_tokens("estimated_max_tokens", most)
        context = current_payer()
        if context is not None and (context.metered or context.exempt):
            return None
        meter = self._meter
        # Here and in _receive: what Sheltered does, without its three calls (a microsecond of `wrap`).
        try:
            who = meter.payer(payer)
            if who is None:
                return None
            bracket = meter.call(who, provider, "wrap", model, 0, most)
        except VISIBLE:
            raise
        except Exception:  # noqa: BLE001  # the guarded boundary: a fault of ours is logged there
            meter.own_fault("preparing a call")
            return None
        bracket.input_tokens = given or None
        payer.metered = True  # what happens inside is counted by this bracket
        return bracket

    def _receive(self, bracket: Call, result: Any, provider: str | None) -> None:
        try:
            self._registry.receive(bracket, result, provider)
        except VISIBLE:
            raise
        except Exception:  # noqa: BLE001  # the guarded boundary: a fault of ours is logged there
            self._meter.own_fault("reading a result")

    def track(
        self,
        user_id: str | None = None,
        session_id: str | None = None,
        plan: str | None = None,
        metadata: dict[str, Any] | None = None,
        *,
        user_id_param: str | None = None,
    ) -> Callable[[F], F]:
        """Decorate a function so that its calls are a user's; see :func:`paygent.paygent_track`."""
        return paygent_track(user_id, session_id, plan, metadata, user_id_param=user_id_param)

    def record_event(
        self,
        user_id: str | None = None,
        cost: float | None = None,
        model: str | None = None,
        input_tokens: int = 0,
        output_tokens: int = 0,
        description: str | None = None,
        metadata: dict[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> UsageEvent | None:
        """
        Record usage that no SDK call stands for; it is counted and never gated.

        Args:
            user_id: ``None`` takes the context's user; without one nothing is recorded.
            cost: US dollars; without it *model* and its tokens are priced by the user's plan.
            metadata: What is not JSON in it is kept as its text.
            idempotency_key: The same key of the same user counts once, for ever, and returns the same event.

        Returns:
            The event; ``None`` without a user, for one whose metering is switched off, and after shutdown.

        Raises:
            ValueError: A negative, NaN, infinite or non-integer amount; neither *cost* nor *model*.
        """
        accounts.checked_amounts(cost, model, input_tokens, output_tokens)
        for name, text in (
            ("model", model),
            ("description", description),
            ("idempotency_key", idempotency_key),
        ):
            accounts.checked_label(name, text)
        given, noted = checked_user_id(user_id), checked_metadata(metadata)
        with Sheltered(self._meter, "recording an event"):
            who = _recorded_for(given, noted)
            if who is None or self._meter.closed:
                return None
            event = self._recorder.record(
                who,
                cost=cost,
                model=model,
                usage=Usage(input_tokens, output_tokens),
                description=description,
                key=idempotency_key,
            )
            return None if event is None else to_model(event)
        return None


def _close(call: Any) -> None:
    """Let go of an awaitable that nobody awaits any more."""
    let_go = getattr(call, "close", None) or getattr(call, "cancel", None)
    if let_go is not None:
        let_go()


def _recorded_for(user_id: str | None, metadata: Any) -> Payer | None:
    """Who pays for a manual event: the user given, else the context's, who may only be resolved now."""
    context = current_payer()
    if user_id is not None:
        return Payer(user_id, None, None, metadata).within(context)
    if context is None or context.exempt:
        return None
    if context.user_id is None and context.resolve is not None:
        context.user_id = checked_user_id(context.resolve())
    if context.user_id is None:
        return None
    payer = Payer(context.user_id, context.session_id, None, metadata or context.metadata)
    return payer.within(context)
