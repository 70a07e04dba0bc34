"""The engine: admits calls against wallets, settles them, and is the desk of the ledger thread."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from paygent import catalogue
from paygent.clock import boot_clock
from paygent.context import Payer, checked_user_id, current_payer
from paygent.core.balance import Denied
from paygent.core.errors import PaygentLimitExceeded, PaygentUnavailable, Refusal
from paygent.core.models import GuardResult, PlanConfig
from paygent.core.plan import compile_plan
from paygent.core.pricing import Rates
from paygent.core.usage import Usage
from paygent.core.windows import billing_period, session_window
from paygent.exporter import Exporter
from paygent.journal import Journal
from paygent.ledger import DEFAULT_PLAN, Account, Ledger, LedgerError, LeaseReply, LeaseRequest, PlanRow, Session
from paygent.meter import refusals, settlement
from paygent.meter.audit import AuditTrail, Callbacks, fire
from paygent.meter.call import Blocked, Call, State
from paygent.meter.ids import EventIds
from paygent.meter.tariff import Habits, Tariff
from paygent.meter.wallet import Ask, Wallet

if TYPE_CHECKING:
    from paygent.meter.jobs import JobLine

log = logging.getLogger("paygent")

PATIENCE_S = 0.25  # the longest anyone waits for a ledger that does not answer
SPENT_MEMORY_S = 0.25
POLL_FIRST_S = 0.01
POLL_MAX_S = 0.25
CACHED_S = 600.0
MODELS_MAX = 1000
MANUAL_IDS_MAX = 10_000


@dataclass
class Options:
    """What ``Paygent.init`` decides for the engine."""

    raise_on_hard_gate: bool = True
    fail_open: bool = True
    unattributed: str = "pass"
    no_plan: str = "allow"
    unpriced: str = "block"
    on_cancel: str = "estimate"
    include_usage: bool | None = None
    busy_timeout_s: float = 2.0
    max_batch_size: int = 100
    flush_interval_s: float = 5.0
    max_queue_size: int = 10_000
    model_aliases: dict[str, str] = field(default_factory=dict)
    lookup: Callable[[str, str | None], Rates | None] = catalogue.lookup
    boot: Callable[[], float] = field(default_factory=boot_clock)


class Meter:
    """One per ``init()``: the wallets of this process, and the rules for a call's way through them."""

    def __init__(self, ledger: Ledger, options: Options) -> None:
        self.options = options
        self.include_usage = options.include_usage
        self.blocks_unpriced = options.unpriced == "block"
        self.callbacks = Callbacks()
        self.wallets: dict[str, Wallet] = {}
        self.plans: dict[str, PlanConfig] = {}
        self.ledger = ledger
        self.closed = False
        self.last_error: str | None = None
        self.boot = options.boot
        self._warned: set[str] = set()
        self._habits: dict[str | None, Habits] = {}
        self._tariffs: dict[PlanRow, Tariff] = {}
        self._lock = threading.Lock()
        self._begin_process()

    def _begin_process(self) -> None:
        """What belongs to one process and one process only; a forked child calls it again."""
        self.pid = os.getpid()
        self.degraded = False
        self.lease_id = uuid.uuid4().hex
        self.new_id = EventIds()
        self.audit = AuditTrail(self.new_id)
        self.journal = Journal(self.ledger.journal_dir, self.lease_id)
        tick_s = min(1.0, self.options.flush_interval_s)
        self.exporter = Exporter(self.ledger, self.journal, self.lease_id, self, self.boot, tick_s)
        self._dropped: deque[tuple[Call, Usage | None, int]] = deque()
        self._polling: set[Wallet] = set()
        self._changes: deque[Callable[[Ledger], None]] = deque()
        self._manual_ids: set[str] = set()
        self._overflowed = 0
        self.dropped = 0
        self._next_due_s = 0.0

    def after_fork(self) -> None:
        """In the child: fresh locks, queues, ids and files, and no lease; the parent's calls are inert here."""
        self.journal.forget_after_fork()
        self.ledger.forget_after_fork()
        self._lock = threading.Lock()
        self.wallets = {}
        self._begin_process()

    # -- who pays -------------------------------------------------------------------------------------

    def payer(self, carried: Payer | None) -> Payer | None:
        """
        Who pays for a call about to be made; ``None``: it passes unmetered.

        Raises:
            PaygentLimitExceeded: Nobody pays, and ``init(unattributed="block")``.
        """
        payer = current_payer()
        if carried is not None:
            payer = carried if carried.user_id is not None or payer is None else _merged(carried, payer)
        if payer is None:
            return self._nobody()
        if payer.exempt or payer.metered:
            return None
        if payer.user_id is None and payer.resolve is not None:
            payer.user_id = checked_user_id(payer.resolve())
        return payer if payer.user_id is not None else self._nobody()

    def _nobody(self) -> None:
        if self.closed:
            return
        if self.options.unattributed == "block":
            message = "This call belongs to no user, and Paygent.init(unattributed='block') refuses such calls."
            result = GuardResult(status="hard_gate", message=message)
            raise PaygentLimitExceeded(result, Refusal("no_user", result))
        self.warn_once("nobody", "an LLM call was made outside of paygent_context: it passes unmetered")

    def call(
        self,
        payer: Payer,
        provider: str | None,
        operation: str,
        model: str | None,
        input_bytes: int,
        max_output_tokens: int | None,
        units: Usage | None = None,
    ) -> Call:
        """Make the bracket for one call of *payer*."""
        if self.options.model_aliases and model is not None:
            model = self.options.model_aliases.get(model, model)
        return Call(self, payer, provider, operation, model, input_bytes, max_output_tokens, units)

    # -- admission ------------------------------------------------------------------------------------

    def begin(self, call: Call) -> None:
        """Gate *call*, waiting for the ledger where it must be asked."""
        try:
            ask = self._admit(call)
            while ask is not None:
                ask = self._resume(ask) if self._wait(ask.future) else self._impatient(ask)
        except (PaygentLimitExceeded, PaygentUnavailable):
            raise
        except Exception:
            self.own_fault("admitting a call")
            call.state = State.PASSES
        except BaseException:
            if ask is not None:
                self._abandon(ask)
            raise

    async def begin_async(self, call: Call) -> None:
        """The asynchronous twin of :meth:`begin`: the event loop never waits for the ledger."""
        ask = None
        try:
            ask = self._admit(call)
            while ask is not None:
                ask = self._resume(ask) if await _wait_async(ask.future) else self._impatient(ask)
        except (PaygentLimitExceeded, PaygentUnavailable):
            raise
        except Exception:
            self.own_fault("admitting a call")
            call.state = State.PASSES
        except BaseException:
            if ask is not None:
                self._abandon(ask)
            raise

    def when_open(self, call: Call, then: Callable[[], None]) -> None:
        """Have *then* run once the windows of *call* are known, without waiting and without a gate."""
        call.forced = True
        wallet = call.wallet = self.wallet(call.user_id)
        ask = Ask(call, self.boot())
        ask.future.add_done_callback(lambda _: then() if call.state is State.HELD else None)
        with wallet.lock:
            wallet.asks = wallet.asks or deque()
            wallet.asks.append(ask)
        self.exporter.submit(wallet)

    def _wait(self, future: Future[Any]) -> bool:
        """Wait for at most ``PATIENCE_S``; whether the answer is there."""
        if self.exporter.is_current:
            self.exporter.run_step()
            return future.done()
        return bool(wait((future,), timeout=PATIENCE_S).done)

    def _admit(self, call: Call) -> Ask | None:
        if self.closed:
            self.warn_once("closed", "an LLM call was made after shutdown(): it passes unmetered")
            call.state = State.PASSES
            return None
        if self._dropped:
            self.settle_dropped()
        boot_s = self.boot()
        wallet = self.wallets.get(call.user_id) or self.wallet(call.user_id)
        call.wallet = wallet
        ask = None
        with wallet.lock:
            wallet.touched_s = boot_s
            outcome = call.attempt(wallet, boot_s) if not wallet.asks else None
            if outcome is None:
                if self.degraded:
                    outcome = self._alone(wallet, call, boot_s)
                else:
                    ask = Ask(call, boot_s)
                    if wallet.asks is None:
                        wallet.asks = deque()
                    wallet.asks.append(ask)
        if ask is not None:
            self.exporter.submit(wallet)
            return ask
        self._conclude(call, wallet, outcome)
        return None

    def _conclude(self, call: Call, wallet: Wallet, outcome: object) -> None:
        """Carry out what was decided: let the call go on, or refuse it."""
        if outcome is State.HELD:
            if call.soft is not None:
                self._soft(call, call.soft)
            if wallet.announce:
                self._announce(wallet)
        elif outcome is State.PASSES:
            call.state = State.PASSES
        else:
            self._refuse(call, wallet, outcome)

    def _resume(self, ask: Ask) -> Ask | None:
        call = ask.call
        self._conclude(call, call.wallet, ask.future.result())
        return None

    def _impatient(self, ask: Ask) -> Ask | None:
        """Nothing came for a while: is the ledger away, or are others only busy?"""
        call, boot_s = ask.call, self.boot()
        wallet = call.wallet
        if wallet.answered_s >= ask.since_s and boot_s - ask.since_s < self.options.busy_timeout_s:
            return ask
        if not self._withdraw(ask):
            return self._resume(ask)
        with wallet.lock:
            if wallet.answered_s >= ask.since_s:
                outcome: object = Denied(wallet.refused[0] if wallet.refused else "total_spend", busy=True)
            else:
                self.trip(f"the ledger did not answer within {PATIENCE_S:g} s")
                outcome = self._alone(wallet, call, boot_s)
        self._conclude(call, wallet, outcome)
        return None

    def _abandon(self, ask: Ask) -> None:
        """The caller went away while it queued; what it was granted meanwhile goes back to the wallet."""
        if not self._withdraw(ask) and ask.future.result() is State.HELD and settlement.claim(self, ask.call):
            with ask.call.wallet.lock:
                ask.call.release()
            self.freed(ask.call.wallet)

    def _withdraw(self, ask: Ask) -> bool:
        """Take a caller out of the queue; false if it was served in that moment."""
        wallet = ask.call.wallet
        with wallet.lock:
            if wallet.asks and ask in wallet.asks:
                wallet.asks.remove(ask)
                return True
        return False

    def _alone(self, wallet: Wallet, call: Call, boot_s: float) -> object:
        """Judge without the ledger (the wallet's lock is held)."""
        if not self.options.fail_open:
            raise PaygentUnavailable("the ledger cannot be asked, and init(fail_open=False)")
        return self.judge_alone(wallet, call, boot_s)

    def judge_alone(self, wallet: Wallet, call: Call, boot_s: float) -> Any:
        """Judge *call* by what this process knows (the wallet's lock is held)."""
        if wallet.tariff is None:
            self.open_alone(wallet, boot_s)
        account = wallet.account
        assert account is not None
        if not account.sdk_enabled:
            return State.PASSES
        if wallet.session_of(call.session_id, boot_s) is None or wallet.ready_until_s <= boot_s:
            self._windows_alone(wallet, call.session_id, boot_s)
        return call.attempt_alone(wallet, None, boot_s)

    def open_alone(self, wallet: Wallet, boot_s: float) -> None:
        """A user never seen, and no ledger: the plans configured in this process are all there is."""
        wallet.account = Account(wallet.user_id)
        wallet.offset_us = self.now_us() - int(boot_s * 1e6)
        config = self.plans.get(DEFAULT_PLAN)
        row = PlanRow(DEFAULT_PLAN, "alone", config.model_dump_json() if config else None)
        wallet.limited_by(self.tariff(row))
        self._windows_alone(wallet, None, boot_s)

    def _windows_alone(self, wallet: Wallet, own_id: str | None, boot_s: float) -> None:
        assert wallet.tariff is not None and wallet.account is not None
        now_us = wallet.now_us(boot_s)
        session = wallet.session_of(own_id, boot_s)
        if session is None:
            session_id = own_id or str(uuid.uuid4())
            timeout_s = wallet.tariff.plan.session_timeout_s
            session = Session(session_id, session_window(session_id, now_us, timeout_s))
        wallet.windows(billing_period(wallet.account.period, now_us), own_id, session)

    # -- refusals and callbacks -----------------------------------------------------------------------

    def _refuse(self, call: Call, wallet: Wallet, outcome: object) -> None:
        with wallet.lock:
            if isinstance(outcome, Denied):
                refusal = refusals.of_denied(call, wallet, outcome)
            else:
                assert isinstance(outcome, Blocked)
                refusal = refusals.of_blocked(call, wallet, outcome)
        blocks = self.options.raise_on_hard_gate and not call.payer.reports_only
        self._gate(call, refusal.guard_result, blocked=blocks)
        fire(self.callbacks.hard_gate, refusal.guard_result)
        if blocks:
            raise PaygentLimitExceeded(refusal.guard_result, refusal)
        with wallet.lock:
            call.force(wallet, self.boot())
        if call.state is not State.HELD:
            call.state = State.PASSES

    def _soft(self, call: Call, purse: Any) -> None:
        result = refusals.guard_result(purse, "soft_gate")
        self._gate(call, result, blocked=False)
        fire(self.callbacks.soft_gate, result)

    def crossed_soft(self, call: Call, purse: Any) -> None:
        """A post carried a limit over its soft mark."""
        self._soft(call, purse)

    def _gate(self, call: Call, result: GuardResult, *, blocked: bool) -> None:
        self.audit.add(
            call.user_id,
            self.now_us(),
            result,
            session_id=call.session_id,
            model=call.model,
            blocked=blocked,
            metadata=dict(call.metadata) if call.metadata else None,
        )

    def _announce(self, wallet: Wallet) -> None:
        wallet.announce = False
        if self.callbacks.session_start:
            fire(self.callbacks.session_start, self.state_of(wallet))

    # -- settling -------------------------------------------------------------------------------------

    def settle(
        self, call: Call, usage: Usage, response_model: str | None, tools: Sequence[str], *, estimated: bool
    ) -> None:
        """Post a call once, whoever settles it first; a fault of ours is logged and goes no further."""
        try:
            settlement.settle(self, call, usage, response_model, tools, estimated=estimated)
        except Exception:
            self.own_fault("settling a call")

    def fail(self, call: Call, error: BaseException | None) -> None:
        """A provider error is free; a call given up after it was sent posts its input, which may be billed."""
        try:
            if self.options.on_cancel == "estimate" and settlement.may_be_billed(error):
                usage = Usage(input_tokens=call.input_estimate)
                settlement.settle(self, call, usage, None, (), estimated=True)
            elif settlement.claim(self, call):
                with call.wallet.lock:
                    call.release()
                self.freed(call.wallet)
        except Exception:
            self.own_fault("releasing a call")

    def later(self, call: Call, partial: Usage | None, output_bytes: int) -> None:
        """For finalizers: no lock, no I/O; the next call or tick settles it."""
        self._dropped.append((call, partial, output_bytes))

    def settle_dropped(self) -> None:
        """Settle what finalizers left."""
        while self._dropped:
            with contextlib.suppress(IndexError):
                call, partial, output_bytes = self._dropped.popleft()
                call.finish_estimated(partial, output_bytes)

    def freed(self, wallet: Wallet) -> None:
        """Room came back to a wallet: whoever queues there may go on."""
        if wallet.asks:
            self.serve(wallet, None, busy=False)

    # -- the desk of the ledger thread ----------------------------------------------------------------

    def due(self, boot_s: float) -> Iterable[Wallet]:
        """The wallets with something to say, or with a caller who wants to ask again."""
        if boot_s < self._next_due_s:
            return [w for w in tuple(self._polling) if w.is_due(boot_s)]
        self._next_due_s = boot_s + min(1.0, self.options.flush_interval_s)
        self.settle_dropped()
        self._forget(boot_s)
        return [w for w in tuple(self.wallets.values()) if w.is_due(boot_s)]

    def next_poll_s(self) -> float | None:
        """When the next queueing caller wants to ask again."""
        return min((w.poll_at_s for w in tuple(self._polling)), default=None)

    def answered(self, wallet: Wallet, request: LeaseRequest, reply: LeaseReply) -> bool:
        """Take a reply over and serve who waits; true: ask again at once."""
        wallet.receive(request, reply, self.tariff(reply.plan), self.boot())
        again = self.serve(wallet, reply.denied if request.need else None, busy=reply.busy)
        return again or (reply.contended and not wallet.asks and wallet.idle_lease)

    def serve(self, wallet: Wallet, denied: str | None, *, busy: bool) -> bool:
        """Let the queue in, first come, first served; true: the head needs the ledger (again)."""
        served: list[tuple[Ask, object]] = []
        boot_s = self.boot()
        with wallet.lock:
            again = self._serve(wallet, denied, busy, boot_s, served)
            if wallet.asks and not again:
                self._polling.add(wallet)
            else:
                self._polling.discard(wallet)
        for ask, outcome in served:
            _answer(ask, outcome)
        return again

    def _serve(
        self, wallet: Wallet, denied: str | None, busy: bool, boot_s: float, served: list[tuple[Ask, object]]
    ) -> bool:
        while wallet.asks:
            ask = wallet.asks[0]
            outcome = ask.call.attempt(wallet, boot_s)
            if outcome is None and denied is not None:
                wallet.refused = (denied, self._is_exact(wallet), ask.call.need_by_scope().get(denied, 0))
                if busy:
                    wallet.poll_s = min(max(wallet.poll_s * 2, POLL_FIRST_S), POLL_MAX_S)
                    wallet.poll_at_s = boot_s + wallet.poll_s
                    return False
                wallet.refused_until_s = boot_s + SPENT_MEMORY_S
                outcome = Denied(denied, busy=False)
            if outcome is None:
                return True
            denied, wallet.poll_s, wallet.poll_at_s = None, 0.0, 0.0
            wallet.asks.popleft()
            served.append((ask, outcome))
        return False

    def _is_exact(self, wallet: Wallet) -> bool:
        return wallet.tariff is not None and wallet.tariff.plan.exact

    def reachable(self) -> None:
        """The ledger answered."""
        if self.degraded:
            self.degraded = False
            log.warning("the ledger answers again; limits are shared with other processes again")

    def unreachable(self, error: LedgerError) -> None:
        """The ledger could not be asked: whoever waits is judged by what is known here."""
        self.trip(str(error))
        self._shed()
        boot_s = self.boot()
        for wallet in tuple(self.wallets.values()):
            served: list[tuple[Ask, object]] = []
            with wallet.lock:
                while wallet.asks:
                    ask = wallet.asks.popleft()
                    try:
                        served.append((ask, self._alone(wallet, ask.call, boot_s)))
                    except Exception as fault:  # noqa: BLE001  # it belongs to the caller who waits
                        ask.future.set_exception(fault)
            self._polling.discard(wallet)
            for ask, outcome in served:
                _answer(ask, outcome)

    def trip(self, reason: str) -> None:
        """Open the breaker: nobody waits for the ledger until it answers again."""
        self.last_error = reason
        if not self.degraded:
            self.degraded = True
            log.warning("the ledger is away (%s); calls go on, each process alone keeps to the limits", reason)

    def after_tick(self, ledger: Ledger, boot_s: float) -> None:
        """On the ledger thread: write the audit trail, and probe a ledger that was away."""
        if self.degraded:
            ledger.plans()
            self.reachable()
        while self._changes:
            self._changes[0](ledger)
            self._changes.popleft()
        self.audit.write(ledger, self.now_us())
        if self._overflowed:
            self.exporter.settle(self.journal.read_back())
            self._overflowed = 0

    def _shed(self) -> None:
        """Keep the events in memory within bounds; what leaves memory is still in the journal."""
        excess = self.pending_events - self._overflowed - self.options.max_queue_size
        for wallet in tuple(self.wallets.values()):
            if excess <= 0:
                return
            with wallet.lock:
                gone, wallet.events = wallet.events[:excess], wallet.events[excess:]
            excess -= len(gone)
            if self.journal.writable:
                self._overflowed += len(gone)
            else:
                self.dropped += len(gone)

    def _forget(self, boot_s: float) -> None:
        for user_id, wallet in tuple(self.wallets.items()):
            if boot_s - wallet.touched_s > CACHED_S and wallet.forgettable:
                with self._lock:
                    self.wallets.pop(user_id, None)

    # -- for the public object ------------------------------------------------------------------------

    def put(self, change: Callable[[Ledger], None]) -> bool:
        """Change the ledger, in order; false where it is away: the change then follows when it returns."""
        if not self._changes and not self.degraded:
            future = self.exporter.call(change)
            if wait((future,), timeout=PATIENCE_S).done and future.exception() is None:
                return True
            if future.done() and not isinstance(future.exception(), LedgerError):
                future.result()
            if not future.done() and not future.cancel():
                return False
            self.trip("a change did not reach the ledger")
        self._changes.append(change)
        return False

    def is_first(self, event_id: str) -> bool:
        """Whether an id chosen by the caller is new to this process; the ledger knows of the others."""
        with self._lock:
            if event_id in self._manual_ids:
                return False
            if len(self._manual_ids) >= MANUAL_IDS_MAX:
                self._manual_ids.clear()
            self._manual_ids.add(event_id)
            return True

    def is_current(self, wallet: Wallet) -> bool:
        """Whether a wallet's period is running; what it knows older than a second is asked for in passing."""
        boot_s = self.boot()
        if boot_s - wallet.answered_s > 1.0:
            wallet.stale = True
        return wallet.period is not None and wallet.now_us(boot_s) < wallet.period.end_us

    def void(self, call: Call) -> None:
        """Give back a hold without posting."""
        if settlement.claim(self, call):
            with call.wallet.lock:
                call.release()

    def forget(self, user_id: str) -> None:
        """Drop a user from memory, after what he spent is settled."""
        wallet = self.wallets.get(user_id)
        if wallet is None:
            return
        with wallet.lock:
            wallet.override = wallet.state = None
            wallet.touched_s = wallet.ready_until_s = 0.0
            wallet.announce = True
        self.exporter.submit(wallet)
        with self._lock:
            if wallet.forgettable:
                self.wallets.pop(user_id, None)

    def announce(self, wallet: Wallet) -> None:
        """Tell the callbacks that a user is loaded, once per load."""
        if wallet.announce:
            self._announce(wallet)

    def close(self, timeout_s: float) -> None:
        """Settle what is open, within *timeout_s*; what is not settled then stays in the journal."""
        self.settle_dropped()
        self.closed = True
        flushed = self.exporter.flush(give_back=True)
        done = not wait((flushed,), timeout=timeout_s).not_done and flushed.exception() is None
        if not self.exporter.stop(timeout_s):
            log.warning("the ledger did not finish within %g s; what is open is in the journal", timeout_s)
        self.journal.close(remove=done and self.pending_events == 0)
        with contextlib.suppress(LedgerError):
            if done:
                self.ledger.close()

    def everyone(self, *, give_back: bool) -> list[Wallet]:
        """All wallets, for a flush; with *give_back* no wallet keeps anything idle."""
        self.settle_dropped()
        wallets = list(self.wallets.values())
        if give_back:
            for wallet in wallets:
                wallet.touched_s = -1e9
        return wallets

    @property
    def pending_events(self) -> int:
        """Events that the ledger does not have yet."""
        wallets = tuple(self.wallets.values())
        return sum(len(w.events) + len(w.sent_events or ()) for w in wallets) + self._overflowed

    @property
    def queue_stats(self) -> dict[str, Any]:
        """See ``Paygent.queue_stats``."""
        pending = self.pending_events
        return {
            "pending": pending,
            "unsynced": pending,
            "flushed": self.exporter.flushed,
            "dropped": self.dropped,
            "degraded": self.degraded,
            "last_error": self.last_error or self.journal.last_error,
        }

    # -- what calls share -----------------------------------------------------------------------------

    def wallet(self, user_id: str) -> Wallet:
        """The wallet of a user, made when it is first asked for."""
        with self._lock:
            wallet = self.wallets.get(user_id)
            if wallet is None:
                wallet = self.wallets[user_id] = Wallet(user_id, self.lease_id)
            return wallet

    def tariff(self, row: PlanRow) -> Tariff:
        """The compiled plan of *row*, one object per content."""
        tariff = self._tariffs.get(row)
        if tariff is None:
            config = PlanConfig.model_validate_json(row.config) if row.config else PlanConfig()
            if row.config is None:
                self.warn_once(
                    f"no plan {row.name}", f"no plan named {row.name!r} is configured: its users have no limits"
                )
            tariff = Tariff(compile_plan(row.name, config), self.options.lookup)
            tariff.blocks_all = row.config is None and self.options.no_plan == "block"
            if len(self._tariffs) > MODELS_MAX:
                self._tariffs.clear()
            self._tariffs[row] = tariff
        return tariff

    def habits(self, model: str | None) -> Habits:
        """What calls of *model* taught so far; the number kept is bounded."""
        habits = self._habits.get(model)
        if habits is None:
            if len(self._habits) >= MODELS_MAX:
                self._habits.clear()
            habits = self._habits[model] = Habits()
        return habits

    def now_us(self) -> int:
        """The wall clock of this machine."""
        return settlement.wall_us()

    def unpriced(self, model: str | None) -> None:
        """Say once per model that nobody knows its price."""
        self.warn_once(f"unpriced {model}", f"no price is known for the model {model!r}; add it to cost_rates")

    def unmetered(self, what: str) -> None:
        """Say once that a surface cannot be metered."""
        self.warn_once(f"unmetered {what}", f"{what} does not pass the metered request path: it is not metered")

    def warn_once(self, key: str, message: str) -> None:
        """Log *message* once per process and *key*."""
        if key not in self._warned and len(self._warned) < MODELS_MAX:
            self._warned.add(key)
            log.warning("%s", message)

    def own_fault(self, what: str) -> None:
        """A fault of ours, while handling an exception: it is logged, and the caller never sees it."""
        self.last_error = f"a fault while {what}"
        log.exception("paygent met a fault of its own while %s; the call goes on", what)

    # -- batches and background responses --------------------------------------------------------------

    def remember_job(self, payer: Payer, provider: str, job_id: str, model: str | None) -> None:
        """Remember whom a batch belongs to, until its results are read."""
        settlement.remember_job(self, payer, provider, job_id, model)

    def link_job(self, provider: str, job_id: str, alias: str) -> None:
        """Let a result file name its batch."""
        self.exporter.call(lambda ledger: ledger.link_job(provider, job_id, alias))

    def job_results(self, provider: str, job_or_alias: str, lines: Sequence[JobLine]) -> None:
        """Count the results of a batch, once, from whichever process reads them."""
        settlement.job_results(self, provider, job_or_alias, lines)

    def state_of(self, wallet: Wallet) -> Any:
        """The live state of a user; see ``paygent.meter.live``."""
        from paygent.meter.live import live_state  # noqa: PLC0415  # only who asks for it pays for it

        return live_state(self, wallet)


def _merged(carried: Payer, payer: Payer) -> Payer:
    """Per-call keywords without a user: the context's user, with what the keywords say."""
    merged = Payer(
        payer.user_id,
        carried.session_id or payer.session_id,
        payer.plan,
        {**(payer.metadata or {}), **(carried.metadata or {})} or None,
        exempt=payer.exempt,
        metered=payer.metered,
        resolve=payer.resolve,
    )
    merged.reports_only = payer.reports_only
    return merged


def _answer(ask: Ask, outcome: object) -> None:
    if ask.future.set_running_or_notify_cancel():
        ask.future.set_result(outcome)
    elif outcome is State.HELD:
        ask.call.release()
        ask.call.state = State.DONE


async def _wait_async(future: Future[Any]) -> bool:
    """The asynchronous twin of ``Meter._wait``; a cancelled caller leaves the future to its wallet."""
    done, _ = await asyncio.wait((asyncio.wrap_future(future),), timeout=PATIENCE_S)
    return bool(done)
