"""The public object: wiring of the ledger, the engine and the instrumentation."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import weakref
from collections.abc import Callable
from typing import Any, Literal

from paygent import _settings, instrumentation, propagation
from paygent._connection import Store, journal_folder, open_store
from paygent._forking import ProcessLock
from paygent._metering import Metering
from paygent._shelter import Sheltered
from paygent._users import Users
from paygent.core.models import GuardResult, UsageEvent, UserState
from paygent.instrumentation import ProviderRegistry
from paygent.ledger import LedgerError
from paygent.meter import active
from paygent.meter.meter import Meter
from paygent.meter.options import Options, nothing
from paygent.plans import read_plans

log = logging.getLogger("paygent")

FLUSH_S = 30.0  # the longest that flush() waits


class Paygent(Metering, Users):
    """
    Meters each user's LLM calls and enforces his plan; one per process, made by :meth:`init`.

    Every method may be called from any thread, also from callbacks.

    Args of :meth:`init`:
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
        ledger: ``sqlite:///path``, ``postgresql://…``, ``redis://…`` or ``memory://``; wins over *db_path*.
        plans: A TOML file of plans, checked and registered now.
        fail_open: False raises ``PaygentUnavailable`` when the ledger is away and the lease is spent.
        unattributed: Whether calls that belong to nobody ``"pass"`` unmetered or are refused.
        no_plan: Whether users without a plan are unlimited (``"allow"``) or refused.
        unpriced: Whether models without a known price are refused under a finite spend cap.
        on_cancel: Whether a call given up after it was sent posts its input (``"estimate"``).
        include_usage: Ask OpenAI-compatible streams for usage: always, never, or on OpenAI's own host (None).
        busy_timeout: Seconds a call waits while other calls hold what is left.
        model_aliases: Deployment names by the model behind them, as in ``{"my-azure": "gpt-4o"}``.
        journal_dir: Folder for the journals of this machine's processes, also ``PAYGENT_JOURNAL_DIR``; beside
            the SQLite file by default. Each ledger has a folder of its own in it.
        flush_on_request_end: Settle before a web response ends, for platforms that freeze a process then.
        propagate_threads: Carry the user into threads and executors that are started for him.
    """

    _instance: Paygent | None = None
    _lock = ProcessLock()

    def __init__(self, meter: Meter, registry: ProviderRegistry, store: Store) -> None:
        super().__init__(meter, registry)
        self._store = store
        self._initialized = True

    # -- lifecycle ------------------------------------------------------------------------------------

    @classmethod
    def init(
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
        journal_dir: str | os.PathLike[str] | None = None,
        flush_on_request_end: bool = False,
        propagate_threads: bool = False,
    ) -> Paygent:
        """
        Create the process's Paygent; an earlier one is shut down first. The class documents the arguments.

        Raises:
            ValueError: An argument cannot be right; the message names it, and nothing has changed.
            OSError: The file of *plans* cannot be read.
            PaygentBackendUnreachable: The backend does not answer, and *strict_backend*.
            PaygentAuthInvalid: The backend does not take the key, and *strict_backend*.
        """
        _settings.check_choices(
            unattributed=unattributed, no_plan=no_plan, unpriced=unpriced, on_cancel=on_cancel
        )
        _settings.check_amounts(
            flush_interval=flush_interval, max_batch_size=max_batch_size, max_queue_size=max_queue_size,
            refresh_interval=refresh_interval, busy_timeout=busy_timeout,
        )  # fmt: skip
        configured = read_plans(plans) if plans is not None else {}
        store = open_store(api_key, base_url, ledger, db_path, strict=strict_backend)
        options = Options(
            raise_on_hard_gate, fail_open, unattributed, no_plan, unpriced, on_cancel, include_usage,
            busy_timeout, int(max_batch_size), flush_interval, int(max_queue_size), dict(model_aliases or {}),
            journal_folder(journal_dir, store.name), flush_on_request_end,
            getattr(store.ledger, "remembered", nothing), refresh_interval if store.api_key else None,
        )  # fmt: skip
        pg = cls(Meter(store.ledger, options), registry or ProviderRegistry(), store)
        for name, config in configured.items():
            pg.configure_plan(name, config)
        cls._replace(pg)
        pg._patch(auto_instrument, propagate_threads)
        return pg

    def _patch(self, auto_instrument: bool, propagate_threads: bool) -> None:
        """Put the patches in place that are asked for, and take away those of an earlier instance."""
        if auto_instrument:
            self.instrument()
        else:
            self.uninstrument()
        if propagate_threads:
            propagation.patch_threads()

    @classmethod
    def _replace(cls, pg: Paygent) -> Paygent:
        """Make *pg* the process's one; the one before it is shut down."""
        with Paygent._lock:
            before, Paygent._instance = Paygent._instance, pg
            _meters.add(pg._meter)
            active.activate(pg._meter)  # first: no call passes between the two
            if before is not None:
                before.shutdown()
        return pg

    @classmethod
    def get_instance(cls) -> Paygent | None:
        """Return the process's Paygent, or ``None`` before :meth:`init` and after :meth:`shutdown`."""
        return Paygent._instance

    def instrument(self) -> list[str]:
        """Patch the provider SDKs, also those imported later; returns the keys of the patches in place."""
        return instrumentation.instrument()

    def uninstrument(self) -> int:
        """Remove the patches; returns how many were restored."""
        return instrumentation.uninstrument()

    def flush(self, *, give_back: bool = False, timeout: float = FLUSH_S) -> int:
        """
        Settle everything metered so far, within *timeout* seconds; returns how many events were flushed.

        What is not settled by then is settled in the background. *give_back* leaves nothing behind in the
        ledger or the journal: for the end of a server's work, from where the process may be killed.
        """
        before = self._meter.exporter.flushed
        if not self._meter.closed:
            with Sheltered(self._meter, "flushing"), contextlib.suppress(LedgerError):
                flushed = self._meter.exporter.flush(give_back=give_back)
                if self._meter.patience.wait(flushed, timeout, to_the_end=True):
                    flushed.result()
                else:
                    self._meter.gate.look()
            if give_back:
                self._meter.journal.rest()
        return self._meter.exporter.flushed - before

    def shutdown(self, timeout: float = 10.0) -> None:
        """Restore the patches, settle what is open and close; calls made later pass through unmetered."""
        if not self._initialized:
            return
        self._initialized = False
        with Sheltered(self._meter, "restoring the patches"):
            if Paygent._instance is self:
                Paygent._instance = None
                instrumentation.uninstrument()
                propagation.unpatch_threads()
        with Sheltered(self._meter, "closing"):
            self._meter.close(timeout)

    # -- properties -----------------------------------------------------------------------------------

    @property
    def api_key(self) -> str | None:
        """Configured API key."""
        return self._store.api_key

    @property
    def base_url(self) -> str:
        """Backend URL."""
        return self._store.base_url

    @property
    def is_local_mode(self) -> bool:
        """Whether there is no API key."""
        return self._store.api_key is None

    @property
    def is_connected(self) -> bool:
        """Whether a backend is reachable now, as far as is known."""
        if self._store.api_key is None or self._meter.closed:
            return False
        return not self._meter.degraded and (self._store.is_reachable or self._meter.exporter.heard)

    @property
    def backend_reachable(self) -> bool:
        """Whether the backend answered at ``init()``."""
        return self._store.is_reachable

    @property
    def is_initialized(self) -> bool:
        """Whether ``init()`` completed and ``shutdown()`` was not called."""
        return self._initialized

    @property
    def is_instrumented(self) -> bool:
        """Whether the patches are in place."""
        return instrumentation.is_instrumented()

    @property
    def is_degraded(self) -> bool:
        """Whether the ledger is away: each process then keeps to the limits by what it knows."""
        return self._meter.degraded

    @property
    def flush_on_request_end(self) -> bool:
        """Whether the web plugins settle before a response ends."""
        return self._meter.options.flush_on_request_end

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


_meters: weakref.WeakSet[Meter] = weakref.WeakSet()


def _after_fork() -> None:
    for meter in tuple(_meters):
        try:
            meter.after_fork()
        except Exception:  # the others have their parent's calls, too
            log.exception("paygent could not begin anew in a forked process")
    # Before Python 3.13 a forked child of multiprocessing ends without atexit, but runs its own finalizers.
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.register_after_fork(Paygent, lambda _: util.Finalize(None, _at_exit, exitpriority=0))


@atexit.register
def _at_exit() -> None:
    pg = Paygent.get_instance()
    if pg is not None:
        pg.shutdown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
