"""The public object: wiring of the ledger, the engine and the instrumentation."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import warnings
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from paygent import instrumentation
from paygent.context import (
    Payer,
    as_payer,
    checked_session_id,
    checked_user_id,
    current_payer,
    paygent_track,
)
from paygent.core.errors import PaygentBackendUnreachable
from paygent.core.events import to_model
from paygent.core.models import (
    BillingPeriod,
    BudgetRemaining,
    CurrentUsage,
    GuardResult,
    MaxTokensAdvice,
    ModelUsage,
    PlanConfig,
    UsageEvent,
    UserState,
)
from paygent.instrumentation import ProviderRegistry
from paygent.ledger import DEFAULT_PLAN
from paygent.ledgers import open_ledger
from paygent.meter import accounts, active, advice
from paygent.meter.live import live_state, usage_of
from paygent.meter.meter import Meter, Options
from paygent.plans import read_plans

log = logging.getLogger("paygent")

F = TypeVar("F", bound=Callable[..., Any])
BASE_URL = "https://api.paygent.to"


class Paygent:
    """
    Meters each user's LLM calls and enforces his plan; one per process, made by :meth:`init`.

    Every method may be called from any thread, also from callbacks.
    """

    _instance: Paygent | None = None
    _lock = threading.Lock()

    def __init__(self, meter: Meter, registry: ProviderRegistry, api_key: str | None, base_url: str) -> None:
        self._meter = meter
        self._registry = registry
        self._api_key = api_key
        self._base_url = base_url
        self._initialized = True

    # -- lifecycle ------------------------------------------------------------------------------------

    @classmethod
    def init(  # noqa: PLR0913  # the signature is public
        cls,
        api_key: str | None = None,
        base_url: str | None = None,
        db_path: str | os.PathLike[str] | None = None,
        flush_interval: float = 5.0,
        max_batch_size: int = 100,
        max_queue_size: int = 10_000,
        raise_on_hard_gate: bool = True,
        auto_instrument: bool = True,
        registry: ProviderRegistry | None = None,
        refresh_interval: float = 60.0,
        strict_backend: bool = False,
        *,
        ledger: str | None = None,
        plans: str | os.PathLike[str] | None = None,
        fail_open: bool = True,
        unattributed: Literal["pass", "block"] = "pass",
        no_plan: Literal["allow", "block"] = "allow",
        unpriced: Literal["block", "allow"] = "block",
        on_cancel: Literal["estimate", "void"] = "estimate",
        include_usage: bool | None = None,
        busy_timeout: float = 2.0,
        model_aliases: dict[str, str] | None = None,
    ) -> Paygent:
        """
        Create the process's Paygent; an earlier one is shut down first.

        Args:
            api_key, base_url: Backend; also ``PAYGENT_API_KEY`` and ``PAYGENT_BASE_URL``.
            db_path: SQLite file, ``~/.paygent/local.db`` by default.
            flush_interval: Seconds between background flushes; what is spent is settled each second at most.
            max_batch_size: Events after which a user's usage is settled at once.
            max_queue_size: Events kept in memory while the ledger is away; the journal keeps the rest.
            raise_on_hard_gate: False lets a call beyond the limit run and be posted; callbacks still fire.
            auto_instrument: Patch the OpenAI and Anthropic SDKs.
            registry: Providers for :meth:`wrap`; OpenAI and Anthropic by default.
            refresh_interval: Seconds between refreshes of users from a backend.
            strict_backend: Raise instead of warn when the backend cannot be used.
            ledger: ``sqlite:///path`` or ``memory://``; wins over *db_path*.
            plans: A TOML file of plans, checked and registered now.
            fail_open: False raises ``PaygentUnavailable`` when the ledger is away and the lease is spent.
            unattributed: Whether calls that belong to nobody ``"pass"`` unmetered or are refused.
            no_plan: Whether users without a plan are unlimited (``"allow"``) or refused.
            unpriced: Whether models without a known price are refused under a finite spend cap.
            on_cancel: Whether a call given up after it was sent posts its input (``"estimate"``).
            include_usage: Ask OpenAI-compatible streams for usage: on OpenAI's own host (``None``), always, never.
            busy_timeout: Seconds a call waits while other calls hold what is left.
            model_aliases: Deployment names by the model behind them, as in ``{"my-azure": "gpt-4o"}``.

        Raises:
            ValueError: An argument cannot be right; the message names it.
            PaygentBackendUnreachable: No backend, and *strict_backend*.
        """
        _check_choices(unattributed=unattributed, no_plan=no_plan, unpriced=unpriced, on_cancel=on_cancel)
        _check_positive(
            flush_interval=flush_interval, max_batch_size=max_batch_size, max_queue_size=max_queue_size
        )
        configured = read_plans(plans) if plans is not None else {}
        options = Options(
            raise_on_hard_gate=raise_on_hard_gate,
            fail_open=fail_open,
            unattributed=unattributed,
            no_plan=no_plan,
            unpriced=unpriced,
            on_cancel=on_cancel,
            include_usage=include_usage,
            busy_timeout_s=busy_timeout,
            flush_interval_s=flush_interval,
            max_batch_size=int(max_batch_size),
            max_queue_size=int(max_queue_size),
            model_aliases=dict(model_aliases or {}),
        )
        api_key = api_key or os.environ.get("PAYGENT_API_KEY") or None
        base_url = base_url or os.environ.get("PAYGENT_BASE_URL") or BASE_URL
        meter = Meter(open_ledger(_ledger_url(ledger, db_path)), options)
        with cls._lock:
            if cls._instance is not None:
                cls._instance.shutdown()
            pg = cls(meter, registry or ProviderRegistry(), api_key, base_url)
            cls._instance = pg
            active.activate(meter)
            _meters.add(meter)
        if api_key is not None:
            _warn_of_backend(base_url, strict=strict_backend)
        for name, config in configured.items():
            pg.configure_plan(name, config)
        if auto_instrument:
            pg.instrument()
        return pg

    @classmethod
    def get_instance(cls) -> Paygent | None:
        """Return the process's Paygent, or ``None`` before :meth:`init` and after :meth:`shutdown`."""
        return cls._instance

    def instrument(self) -> list[str]:
        """Patch the provider SDKs, also those imported later; returns the keys of the patches in place."""
        return instrumentation.instrument()

    def uninstrument(self) -> int:
        """Remove the patches; returns how many were restored."""
        return instrumentation.uninstrument()

    def flush(self) -> int:
        """Settle everything metered so far; returns how many events were flushed."""
        before = self._meter.exporter.flushed
        accounts.settled(self._meter, self._meter.exporter.flush(), None)
        return self._meter.exporter.flushed - before

    def shutdown(self, timeout: float = 10.0) -> None:
        """Restore the patches, settle what is open and close; calls made later pass through unmetered."""
        if not self._initialized:
            return
        self._initialized = False
        with _quiet("restoring the patches"):
            if Paygent._instance is self:
                instrumentation.uninstrument()
                Paygent._instance = None
        self._meter.close(timeout)

    # -- properties -----------------------------------------------------------------------------------

    @property
    def api_key(self) -> str | None:
        """Configured API key."""
        return self._api_key

    @property
    def base_url(self) -> str:
        """Backend URL."""
        return self._base_url

    @property
    def is_local_mode(self) -> bool:
        """Whether there is no API key."""
        return self._api_key is None

    @property
    def is_connected(self) -> bool:
        """Whether a backend is reachable now."""
        return False

    @property
    def backend_reachable(self) -> bool:
        """Whether the backend answered at ``init()``."""
        return False

    @property
    def is_initialized(self) -> bool:
        """Whether ``init()`` completed and ``shutdown()`` was not called."""
        return self._initialized

    @property
    def is_instrumented(self) -> bool:
        """Whether the patches are in place."""
        return instrumentation.is_instrumented()

    @property
    def pending_events(self) -> int:
        """Events not yet in the ledger."""
        return self._meter.pending_events

    @property
    def queue_stats(self) -> dict[str, Any]:
        """
        Diagnostics of delivery.

        ``pending``: events in memory and not yet in the ledger; ``unsynced``: events not yet at a backend;
        ``flushed``: events delivered by this process; ``dropped``: events that neither memory nor the
        journal could keep; ``degraded``: whether the ledger is away; ``last_error``: the last fault, or None.
        """
        return self._meter.queue_stats

    # -- metering -------------------------------------------------------------------------------------

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

        Args:
            call: Makes the provider call; its result is returned as it is, a stream included.

        Raises:
            PaygentLimitExceeded: The plan does not cover the call; it was not made.
            ValueError: *provider* is unknown, or *user_id* cannot be stored.
        """
        bracket, inside = self._bracket(
            user_id, model, session_id, metadata, provider, estimated_input_tokens, estimated_max_tokens
        )
        if bracket is None:
            return call()
        with bracket:
            with as_payer(inside):
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
            bracket, inside = self._bracket(
                user_id, model, session_id, metadata, provider, estimated_input_tokens, estimated_max_tokens
            )
            if bracket is None:
                return await call
            async with bracket:
                with as_payer(inside):
                    result = await call
                self._receive(bracket, result, provider)
        except BaseException:
            close = getattr(call, "close", None)
            if close is not None:
                close()
            raise
        return result

    def _bracket(
        self,
        user_id: str,
        model: str | None,
        session_id: str | None,
        metadata: dict[str, Any] | None,
        provider: str | None,
        input_tokens: int | None,
        max_output_tokens: int | None,
    ) -> tuple[Any, Payer]:
        if provider is not None:
            self._registry.get(provider)
        user = checked_user_id(user_id)
        inside = Payer(user, checked_session_id(session_id), None, metadata, metered=True)
        payer = self._meter.payer(Payer(user, inside.session_id, None, metadata))
        if payer is None or not self._initialized:
            return None, inside
        input_bytes = 4 * (input_tokens or 0)
        return self._meter.call(payer, provider, "wrap", model, input_bytes, max_output_tokens), inside

    def _receive(self, bracket: Any, result: Any, provider: str | None) -> None:
        with _quiet("reading a result"):
            self._registry.receive(bracket, result, provider)

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
            idempotency_key: The same key of the same user counts once, for ever.

        Returns:
            The event, or ``None`` without a user or for a key that was counted before in this process.

        Raises:
            ValueError: A negative, NaN, infinite or non-integer amount.
        """
        accounts.checked_amounts(cost, input_tokens, output_tokens)
        carried = Payer(checked_user_id(user_id), None, None, metadata) if user_id is not None else None
        context = current_payer()
        if carried is None and context is not None:
            carried = Payer(
                context.user_id,
                context.session_id,
                None,
                metadata or context.metadata,
                resolve=context.resolve,
            )
        if carried is None or self._meter.closed:
            return None
        payer = self._meter.payer(carried)
        if payer is None:
            return None
        event = accounts.record(
            self._meter,
            payer,
            cost=cost,
            model=model,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            description=description,
            idempotency_key=idempotency_key,
        )
        return None if event is None else to_model(event)

    # -- pre-flight -----------------------------------------------------------------------------------

    def check_guard(self, user_id: str, model: str | None = None) -> GuardResult:
        """Say what the gate would say to the next call; nothing is reserved, called back or written."""
        meter = self._meter
        wallet = meter.wallets.get(user_id)
        if wallet is None or wallet.tariff is None or not meter.is_current(wallet):
            wallet = accounts.loaded(meter, _known(user_id))
        with wallet.lock:
            return advice.guard(wallet, model)

    def is_within_limit(self, user_id: str, model: str | None = None) -> bool:
        """Whether the next call would not meet a closed gate."""
        return self.check_guard(user_id, model).status != "hard_gate"

    def get_remaining_budget(self, user_id: str) -> BudgetRemaining:
        """What is left on each limit of the user's plan."""
        wallet = accounts.loaded(self._meter, _known(user_id))
        with wallet.lock:
            return advice.budget(wallet)

    def get_max_tokens(
        self,
        user_id: str,
        model: str,
        *,
        estimated_input_tokens: int = 0,
        messages: list[Any] | None = None,
        hard_cap: int = 4096,
    ) -> MaxTokensAdvice:
        """Recommend a ``max_tokens`` that passes no limit; 0 and ``"blocked"``: do not make the call."""
        try:
            habits = self._meter.habits(model)
            input_bytes = instrumentation.text_bytes(messages) if messages else 0
            input_tokens = max(estimated_input_tokens, int(input_bytes * habits.tokens_per_byte) + 1)
            wallet = accounts.loaded(self._meter, _known(user_id))
            with wallet.lock:
                return advice.max_tokens(wallet, model, None, input_tokens, hard_cap, habits)
        except Exception:
            self._meter.own_fault("advising on max_tokens")
            return MaxTokensAdvice(max_tokens=0, binding_limit="blocked")

    # -- users ----------------------------------------------------------------------------------------

    def get_usage(self, user_id: str) -> CurrentUsage:
        """A snapshot of what the user has used; changing it changes nothing."""
        wallet = accounts.loaded(self._meter, _known(user_id))
        totals = accounts.totals(self._meter, wallet.user_id)
        with wallet.lock:
            return usage_of(wallet, totals)

    def get_model_usage(self, user_id: str) -> list[ModelUsage]:
        """One row per model with usage or a limit."""
        wallet = accounts.loaded(self._meter, _known(user_id))
        totals = accounts.totals(self._meter, wallet.user_id)
        with wallet.lock:
            return advice.model_usage(wallet, totals)

    def get_user_state(self, user_id: str) -> UserState:
        """The live state: what is assigned to it changes the next guard check in this process."""
        wallet = accounts.loaded(self._meter, _known(user_id))
        return live_state(self._meter, wallet, accounts.totals(self._meter, wallet.user_id))

    def refresh_user(self, user_id: str) -> UserState:
        """Ask the ledger anew; without an answer the state stays as it is."""
        wallet = accounts.loaded(self._meter, _known(user_id), fresh=True)
        return live_state(self._meter, wallet, accounts.totals(self._meter, wallet.user_id))

    def reset_user(self, user_id: str) -> None:
        """Drop the user from memory; what he has used stays in the ledger."""
        self._meter.forget(_known(user_id))

    # -- callbacks ------------------------------------------------------------------------------------

    def on_soft_gate(self, callback: Callable[[GuardResult], Any]) -> None:
        """Call *callback* for each admitted call at or above a soft mark, and when a post crosses it."""
        self._meter.callbacks.soft_gate.append(callback)

    def on_hard_gate(self, callback: Callable[[GuardResult], Any]) -> None:
        """Call *callback* before ``PaygentLimitExceeded`` is raised."""
        self._meter.callbacks.hard_gate.append(callback)

    def on_usage(self, callback: Callable[[UsageEvent], Any]) -> None:
        """Call *callback* for each metered call, whichever way it was metered."""
        self._meter.callbacks.usage.append(callback)

    def on_session_start(self, callback: Callable[[UserState], Any]) -> None:
        """Call *callback* when a user is first loaded."""
        self._meter.callbacks.session_start.append(callback)

    # -- plans in code --------------------------------------------------------------------------------

    def configure_plan(self, plan_name: str, config: PlanConfig) -> None:
        """Register a plan; equal content changes nothing, other content binds the next call."""
        accounts.put_plan(self._meter, plan_name, config)

    def assign_plan(self, user_id: str, plan: str, billing_period: BillingPeriod | None = None) -> UserState:
        """Put the user on a registered plan, usage kept; an unknown plan has no limits, with a warning."""
        changes = {"plan": plan, "own_config": None, **accounts.period_changes(billing_period)}
        wallet = accounts.put_account(self._meter, _known(user_id), changes)
        return live_state(self._meter, wallet)

    def start_session(
        self, user_id: str, plan: str = DEFAULT_PLAN, plan_config: PlanConfig | None = None
    ) -> UserState:
        """Load the user ahead of the first call; *plan_config* sets his limits, never his usage."""
        changes: dict[str, Any] = {}
        if plan_config is not None:
            changes["own_config"] = plan_config.model_dump_json()
        if plan != DEFAULT_PLAN:
            changes["plan"] = plan
            changes.setdefault("own_config", None)
        wallet = accounts.put_account(self._meter, _known(user_id), changes, plan_config)
        self._meter.gate.announce(wallet)
        return live_state(self._meter, wallet)


def _known(user_id: object) -> str:
    """A user id that names somebody."""
    checked = checked_user_id(user_id)
    if checked is None:
        raise ValueError("user_id must not be empty")
    return checked


def _ledger_url(ledger: str | None, db_path: str | os.PathLike[str] | None) -> str:
    if ledger is not None:
        return ledger
    path = Path(db_path) if db_path is not None else Path("~/.paygent/local.db")
    return f"sqlite:///{path.expanduser().absolute()}"


def _check_choices(**given: str) -> None:
    choices = {
        "unattributed": ("pass", "block"),
        "no_plan": ("allow", "block"),
        "unpriced": ("block", "allow"),
        "on_cancel": ("estimate", "void"),
    }
    for name, value in given.items():
        if value not in choices[name]:
            raise ValueError(f"{name}={value!r}: must be one of {', '.join(map(repr, choices[name]))}")


def _check_positive(**given: float) -> None:
    for name, value in given.items():
        if not value > 0:
            raise ValueError(f"{name}={value!r}: must be above zero")


def _warn_of_backend(base_url: str, *, strict: bool) -> None:
    """This version has no backend client: it says so, and works on the local ledger."""
    warning = PaygentBackendUnreachable(
        f"no connection to the backend at {base_url}: this version keeps to the local ledger"
    )
    if strict:
        raise warning
    warnings.warn(warning, stacklevel=3)


class _quiet:  # noqa: N801  # reads like the statement it is
    """``with _quiet("doing so"):`` logs a fault of ours and goes on."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        """Nothing to set up."""

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if isinstance(error, Exception):
            log.error("paygent met a fault of its own while %s", self._what, exc_info=error)
            return True
        return False


_meters: weakref.WeakSet[Meter] = weakref.WeakSet()


def _after_fork() -> None:
    for meter in tuple(_meters):
        meter.after_fork()


@atexit.register
def _at_exit() -> None:
    if Paygent._instance is not None:
        Paygent._instance.shutdown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
