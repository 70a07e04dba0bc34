"""The engine: admits calls against wallets, settles them, and is the desk of the ledger thread."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paygent._once import Once
from paygent.context import Payer, checked_user_id, current_payer
from paygent.core.bounds import MODEL_LENGTH_MAX
from paygent.core.errors import PaygentLimitExceeded, Refusal
from paygent.core.models import GuardResult, PlanConfig
from paygent.core.plan import compile_plan
from paygent.core.usage import Usage
from paygent.exporter import Exporter
from paygent.journal import Journal
from paygent.ledger import Ledger, LedgerError, PlanRow
from paygent.meter import active, settlement
from paygent.meter.audit import AuditTrail, Callbacks, fire
from paygent.meter.call import Call
from paygent.meter.changes import Changes
from paygent.meter.desk import Desk
from paygent.meter.gate import Gate
from paygent.meter.habits import Habits
from paygent.meter.ids import event_ids
from paygent.meter.live import live_state
from paygent.meter.options import Options
from paygent.meter.patience import Patience
from paygent.meter.queue import Queue
from paygent.meter.tariff import Tariff
from paygent.meter.wallet import Wallet
from paygent.propagation import hint

if TYPE_CHECKING:
    from paygent.meter.jobs import JobLine

log = logging.getLogger("paygent")

MODELS_MAX = 1000


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
        self.closed = False  # from here on no call is let in
        self.is_left = False  # nor is anybody in the engine any more
        self.last_error: str | None = None
        self.boot = options.boot
        self._warned = Once()
        self._habits: dict[str | None, Habits] = {}
        self._tariffs: dict[PlanRow, Tariff] = {}
        self._lock = threading.Lock()
        self._begin_process()

    def _begin_process(self) -> None:
        """What belongs to one process and one process only; a forked child calls it again."""
        self.pid = os.getpid()
        self.degraded = False
        self.lease_id = uuid.uuid4().hex
        self.new_id = event_ids()
        self.audit = AuditTrail(self.new_id)
        self.journal = Journal(self._journal_dir(), self.lease_id)
        tick_s = min(1.0, self.options.flush_interval_s)
        self.gate = Gate(self)
        self.queue = Queue(self)
        self.desk = Desk(self)
        self.exporter = Exporter(self.ledger, self.journal, self.lease_id, self.desk, self.boot, tick_s)
        self.patience = Patience(self.exporter, self.boot)
        self.dropped_calls: deque[Callable[[], None]] = deque()  # what finalizers leave to be done
        self.covered: set[object] = set()  # runs of a framework under way, which its callback counts
        self.changes = Changes(self)
        self.dropped = 0

    def _journal_dir(self) -> Path | None:
        """Where to journal; a ledger that ends with the process needs no journal, wherever it may be."""
        own = self.ledger.journal_dir
        return own if own is None else self.options.journal_dir or own

    def after_fork(self) -> None:
        """In the child: fresh locks, queues, ids and files, no lease; the parent's calls are inert."""
        for forget in (self.journal.forget_after_fork, self.ledger.forget_after_fork):
            try:
                forget()
            except Exception:  # noqa: BLE001  # whatever it is, the parent's calls are not the child's
                self.own_fault("letting go of the parent's files and connections")
        self._lock = threading.Lock()
        self.wallets = {}
        self._begin_process()

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
            self._nobody(None)
            return None
        if payer.exempt or payer.metered:
            return None
        if payer.user_id is None and payer.resolve is not None:
            payer.user_id = checked_user_id(payer.resolve())
        if payer.user_id is None:
            self._nobody(payer)
            return None
        return payer

    def _nobody(self, payer: Payer | None) -> None:
        if self.closed:
            return
        if self.options.unattributed == "block":
            message = (
                "This call belongs to no user, and Paygent.init(unattributed='block') refuses such calls."
            )
            result = GuardResult(status="hard_gate", message=message)
            fire(self.callbacks.hard_gate, result)
            if self.options.raise_on_hard_gate and (payer is None or not payer.reports_only):
                refusal = PaygentLimitExceeded(result, Refusal("no_user", result))
                if payer is not None and payer.tally is not None:
                    payer.tally.refused(refusal)
                raise refusal
        if payer is None and self.covered:
            return  # what is called now may well be one of those, and the next call of nobody is told of
        message, why = f"an LLM call was made {_surroundings(payer)}: it passes unmetered", hint()
        self.warn_once(f"{message} in a thread" if why else message, f"{message}; {why}" if why else message)

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
        if model is not None and (len(model) > MODEL_LENGTH_MAX or not model.isascii()):
            model = settlement.short_name(model)
        return Call(self, payer, provider, operation, model, input_bytes, max_output_tokens, units)

    def settle(
        self, call: Call, usage: Usage, response_model: str | None, tools: Sequence[str], *, estimated: bool
    ) -> None:
        """Post a call once, whoever settles it first; a fault of ours is logged and goes no further."""
        try:
            settlement.settle(self, call, usage, response_model, tools, estimated=estimated)
        except Exception:  # noqa: BLE001  # the guarded boundary: a fault of ours is logged there
            self.own_fault("settling a call")

    def fail(self, call: Call, error: BaseException | None) -> None:
        """A provider error is free; a call given up after it was sent posts its input: it may be billed."""
        try:
            if self.options.on_cancel == "estimate" and settlement.may_be_billed(error):
                usage = Usage(input_tokens=call.input_estimate)
                settlement.settle(self, call, usage, None, (), estimated=True)
            elif settlement.claim(self, call):
                with call.wallet.lock:
                    call.release()
                self.queue.freed(call.wallet)
        except Exception:  # noqa: BLE001  # the guarded boundary: a fault of ours is logged there
            self.own_fault("releasing a call")

    def later(
        self,
        call: Call,
        partial: Usage | None,
        output_bytes: int,
        response_model: str | None = None,
        tools: Sequence[str] = (),
    ) -> None:
        """For finalizers: no lock, no I/O; the next call or tick settles it."""
        seen = (partial, output_bytes, response_model, tools)
        self.leave(lambda: call.finish_estimated(*seen))

    def leave(self, step: Callable[[], None]) -> None:
        """
        For finalizers: the next call or tick does *step*, of whoever took over from this instance.

        Where nobody did, nobody is in the engine either, and it is done at once: the journal keeps it.
        """
        heir = active.get() if self.closed else self
        meter = self if heir is None or heir.closed else heir
        meter.dropped_calls.append(step)
        if meter.is_left:
            meter.settle_dropped()

    def settle_dropped(self) -> None:
        """Settle what finalizers left."""
        while self.dropped_calls:
            try:
                step = self.dropped_calls.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                step()
            except Exception:  # noqa: BLE001  # the guarded boundary: a fault of ours is logged there
                self.own_fault("settling what was dropped")

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
        self.drop(user_id, wallet)

    def close(self, timeout_s: float) -> None:
        """Settle what is open, within *timeout_s*; what is not settled then stays in the journal."""
        self.settle_dropped()
        self.closed = True
        ends_s = self.boot() + timeout_s
        done = self._flushed(timeout_s)
        stopped = self.exporter.stop(max(0.0, ends_s - self.boot()))
        if not stopped:
            log.warning("the ledger did not finish within %g s; what is open is in the journal", timeout_s)
        self.is_left = True  # before the last look: what finalizers leave from now on, they settle
        self.settle_dropped()
        self.journal.close(remove=done and self.pending_events == 0)
        with contextlib.suppress(LedgerError):
            if stopped:  # else its thread is still at it
                self.ledger.close()

    def _flushed(self, timeout_s: float) -> bool:
        try:
            flushed = self.exporter.flush(give_back=True)
        except RuntimeError:  # from Python 3.12 on no thread is started at the end of the interpreter
            if self.exporter.has_begun or self.pending_events:
                raise
            return True
        return not wait((flushed,), timeout=timeout_s).not_done and flushed.exception() is None

    @property
    def pending_events(self) -> int:
        """Events that the ledger does not have yet."""
        wallets = tuple(self.wallets.values())
        return sum(len(w.events) + len(w.sent_events or ()) for w in wallets) + self.journal.shed_count

    @property
    def queue_stats(self) -> dict[str, Any]:
        """See ``Paygent.queue_stats``."""
        pending = self.pending_events
        return {
            "pending": pending,
            "unsynced": pending,
            "flushed": self.exporter.flushed,
            "dropped": self.dropped + self.exporter.rejected,
            "degraded": self.degraded,
            "last_error": self.last_error or self.journal.last_error,
        }

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
            config = PlanConfig.from_backend(json.loads(row.config)) if row.config else PlanConfig()
            if row.config is None:
                self.warn_once(
                    f"no plan {row.name}",
                    f"no plan named {row.name!r} is configured: its users have no limits",
                )
            tariff = Tariff(compile_plan(row.name, config), self.options.lookup, self.habits)
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
        message = f"no price is known for the model {model!r}; add it to cost_rates"
        if model is None:
            message = "neither a call nor its result names a model: it has no price; wrap() takes a model"
        self.warn_once(f"unpriced {model}", message)

    def unmetered(self, what: str) -> None:
        """Say once that a surface cannot be metered."""
        self.warn_once(
            f"unmetered {what}", f"{what} does not pass the metered request path: it is not metered"
        )

    def warn_once(self, key: str, message: str) -> None:
        """Log *message* once per process and *key*."""
        if self._warned.is_new(key):
            log.warning("%s", message)

    def own_fault(self, what: str) -> None:
        """A fault of ours, while handling an exception: it is logged, and the caller never sees it."""
        self.last_error = f"a fault while {what}"
        log.exception("paygent met a fault of its own while %s; the call goes on", what)  # noqa: LOG004

    def remember_job(self, payer: Payer, provider: str, job_id: str, model: str | None) -> None:
        """Remember whom a batch belongs to, until its results are read."""
        settlement.remember_job(self, payer, provider, job_id, model)

    def link_job(self, provider: str, job_id: str, alias: str) -> None:
        """Let a result file name its batch."""
        self.changes.deliver(lambda ledger: ledger.link_job(provider, job_id, alias))

    def job_results(self, provider: str, job_or_alias: str, lines: Sequence[JobLine]) -> None:
        """Count the results of a batch, once, from whichever process reads them."""
        settlement.job_results(self, provider, job_or_alias, lines)

    def state_of(self, wallet: Wallet) -> Any:
        """The live state of a user; see ``paygent.meter.live``."""
        return live_state(self, wallet)

    def drop(self, user_id: str, wallet: Wallet) -> None:
        """Take a wallet out of memory, if nothing is open in it; who holds it asks for another."""
        with self._lock, wallet.lock:
            if wallet.forgettable:
                wallet.gone = True
                self.wallets.pop(user_id, None)


def _surroundings(payer: Payer | None) -> str:
    """Where a call that belongs to nobody was made: what is missing is to be mended there."""
    if payer is None:
        return "outside of paygent_context"
    if payer.tally is not None:
        return "in a web request for no user (a user_id of None or empty, else see get_user_id and anonymous)"
    return "with a user_id that is None or empty"


def _merged(carried: Payer, payer: Payer) -> Payer:
    """Per-call keywords without a user: the context's user, with what the keywords say."""
    return Payer(
        payer.user_id,
        carried.session_id or payer.session_id,
        payer.plan,
        {**(payer.metadata or {}), **(carried.metadata or {})} or None,
        exempt=payer.exempt,
        metered=payer.metered,
        resolve=payer.resolve,
    ).within(payer)
