"""The gate: admits calls against wallets, lets callers queue, and refuses."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import wait
from typing import TYPE_CHECKING, Any

from paygent.core.balance import Denied
from paygent.core.errors import VISIBLE, PaygentLimitExceeded, PaygentUnavailable
from paygent.core.models import GuardResult
from paygent.core.plan import TOTAL_SPEND
from paygent.core.windows import billing_period, session_window
from paygent.ledger import DEFAULT_PLAN, Account, PlanRow, Session
from paygent.meter import active, refusals
from paygent.meter.audit import fire
from paygent.meter.call import HELD, NEW, PASSES, Call, Outcome, is_collected
from paygent.meter.nesting import open_streams
from paygent.meter.patience import AWAY, BUSY_S_MAX, PATIENCE_S
from paygent.meter.sizing import Blocked
from paygent.meter.wallet import Ask, Wallet

if TYPE_CHECKING:
    from paygent.meter.meter import Meter


class Gate:
    """The way of a call into its wallet: at once, after a wait for the ledger, or not at all."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._boot = meter.boot

    def begin(self, call: Call) -> None:
        """Gate *call*, waiting for the ledger where it must be asked."""
        ask = None
        try:
            ask = self._admit(call)
            while ask is not None:
                gate = call.meter.gate
                ask = gate._resume(ask) if gate._wait(ask) else gate._impatient(ask)  # noqa: SLF001
        except VISIBLE:
            raise
        except Exception:
            if ask is not None and ask.is_waiting:  # a signal's, as the time limit of a job: the caller's
                self._abandon(call, ask)
                raise
            self._faulted(call, ask)
        except BaseException as error:
            self._given_up(call, ask, error)
            raise

    async def begin_async(self, call: Call) -> None:
        """The asynchronous twin of :meth:`begin`: the event loop never waits for the ledger."""
        ask = None
        try:
            ask = self._admit(call)
            while ask is not None:
                gate = call.meter.gate
                ask = gate._resume(ask) if await gate._wait_async(ask) else gate._impatient(ask)  # noqa: SLF001
        except VISIBLE:
            raise
        except Exception:  # noqa: BLE001  # the guarded boundary: a fault of ours is logged there
            self._faulted(call, ask)
        except BaseException as error:
            self._given_up(call, ask, error)
            raise

    def _closed(self, call: Call) -> Ask | None:
        """The engine is shut down: whoever took over gates the call; it passes unmetered where nobody did."""
        heir: Meter | None = active.get()
        while heir is not None and heir.closed:
            before, heir = heir, active.get()
            if heir is before:
                heir = None
        if heir is None:
            self._meter.warn_once("closed", "an LLM call was made after shutdown(): it passes unmetered")
            call.state = PASSES
            return None
        call.meter = heir
        return heir.gate._admit(call)  # noqa: SLF001

    def when_open(self, call: Call, then: Callable[[], None]) -> None:
        """Have *then* run once the windows of *call* are known, without waiting and without a gate."""
        call.forced = True
        ask = Ask(call, self._boot())
        ask.future.add_done_callback(lambda _: self._on_open(call, then))
        gone = True
        while gone:  # dropped from memory between the look-up and the lock
            wallet = call.wallet = self._meter.wallet(call.user_id)
            with wallet.lock:
                gone = wallet.gone
                if not gone:
                    wallet.asks = wallet.asks or deque()
                    wallet.asks.append(ask)
        self._meter.exporter.submit(wallet)

    def _on_open(self, call: Call, then: Callable[[], None]) -> None:
        """On the ledger thread, where others wait for the same answer: nothing that *then* raises goes on."""
        if call.state is HELD:
            try:
                then()
            except BaseException:  # noqa: BLE001  # an exit or a cancellation out of a callback, too
                self._meter.own_fault("posting what waited for its user")

    def _wait(self, ask: Ask) -> bool:
        """Wait for a while; whether the answer is there."""
        if self._meter.exporter.is_current:
            self._meter.exporter.run_step()
            return ask.future.done()
        ask.is_waiting = True
        done = wait((ask.future,), timeout=self._next_look_s(ask)).done
        ask.is_waiting = False
        return bool(done)

    async def _wait_async(self, ask: Ask) -> bool:
        """The asynchronous twin; a cancelled caller leaves the future to its wallet."""
        import asyncio  # whoever awaits has it; it would be a quarter of `import paygent`

        try:
            asyncio.get_running_loop()
        except RuntimeError:  # some other event loop: it waits here, for a moment
            return self._wait(ask)
        waiting = asyncio.wrap_future(ask.future)
        # What came of it is read from the ask: asyncio would log a refusal here as one that nobody retrieved.
        waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
        done, _ = await asyncio.wait((waiting,), timeout=self._next_look_s(ask))
        return bool(done)

    def _next_look_s(self, ask: Ask) -> float:
        return self._meter.patience.next_look_s(self._boot() - ask.since_s)

    def _admit(self, call: Call) -> Ask | None:
        meter = self._meter
        if meter.closed:
            return self._closed(call)
        if meter.dropped_calls:
            meter.settle_dropped()
        boot_s = self._boot()
        wallet = meter.wallets.get(call.user_id) or meter.wallet(call.user_id)
        call.wallet = wallet
        ask = None
        with wallet.lock:
            gone = wallet.gone
            wallet.touched_s = boot_s
            outcome = None
            if not gone and (call.forced or not wallet.asks):  # what is only noted down waits for nobody
                outcome = call.attempt(wallet, boot_s)
            if outcome is None and not gone:
                if meter.degraded:
                    outcome = self.alone(wallet, call, boot_s)
                else:
                    ask = Ask(call, boot_s, open_streams())
                    if wallet.asks is None:
                        wallet.asks, wallet.busy_on = deque(), None
                    wallet.asks.append(ask)
        if gone:  # dropped from memory between the look-up and the lock
            return self._admit(call)
        if ask is not None:
            meter.exporter.submit(wallet)
            return ask
        if outcome is not HELD or call.soft is not None or wallet.announce or wallet.thirsty:
            self._conclude(call, wallet, outcome)
        return None

    def _conclude(self, call: Call, wallet: Wallet, outcome: Outcome | None) -> None:
        """Carry out what was decided: let the call go on, or refuse it."""
        if outcome is HELD:
            if call.soft is not None:
                self.crossed_soft(call, call.soft)
            if wallet.thirsty:
                wallet.thirsty = False
                self._meter.exporter.submit(wallet)
            self.announce(wallet)
        elif outcome is PASSES:
            call.state = PASSES
        else:
            self._refuse(call, wallet, outcome)

    def _resume(self, ask: Ask) -> Ask | None:
        call = ask.call
        self._conclude(call, call.wallet, ask.future.result())
        return None

    def _impatient(self, ask: Ask) -> Ask | None:
        """Nothing came for a while: is the ledger away, or are others only busy?"""
        call, boot_s = ask.call, self._boot()
        wallet = call.wallet
        if self._meter.closed:  # in this moment; nobody will serve the queue any more
            return self._closed(call) if self._withdraw(ask) else self._resume(ask)
        waited_s = boot_s - ask.since_s
        is_stalled = self._meter.patience.is_over()
        # Busy is only what the ledger has called so: an answer to something else says nothing of this call.
        is_busy = wallet.busy_on is not None and wallet.answered_s >= ask.since_s
        limit_s = self._meter.options.busy_timeout_s
        if not is_busy:  # it is the ledger that is waited for, not others
            limit_s = max(limit_s, BUSY_S_MAX)
        if waited_s < limit_s and (is_busy or not is_stalled):
            return ask
        if not is_stalled and ask.late_s is None:  # as with patience: a process that was stopped looks again
            ask.late_s = boot_s
            return ask
        if not self._withdraw(ask):
            return self._resume(ask)
        is_away = is_stalled or wallet.answered_s < ask.since_s
        if is_away:
            self._meter.desk.trip(AWAY)
        with wallet.lock:
            if not is_away and not call.forced:
                outcome: Outcome = Denied(wallet.busy_on or TOTAL_SPEND, busy=True)
            else:
                outcome = self.alone(wallet, call, boot_s)
        self._conclude(call, wallet, outcome)
        return None

    def look(self) -> None:
        """Open the breaker where the ledger has been at one request for too long."""
        if self._meter.patience.is_over():
            self._meter.desk.trip(AWAY)

    def _faulted(self, call: Call, ask: Ask | None) -> None:
        """A fault of ours at the gate: the call goes on, metered where it is held already."""
        self._meter.own_fault("admitting a call")
        if ask is not None and not self._withdraw(ask):
            wait((ask.future,), timeout=PATIENCE_S)
        if call.state is NEW:
            call.state = PASSES

    def _abandon(self, call: Call, ask: Ask | None) -> None:
        """The caller went away at the gate; what it was granted meanwhile goes back to the wallet."""
        if ask is not None and not self._withdraw(ask):
            wait((ask.future,), timeout=PATIENCE_S)
        if call.state is HELD:
            call.meter.void(call)
            call.meter.queue.freed(call.wallet)

    def _given_up(self, call: Call, ask: Ask | None, error: BaseException) -> None:
        """The caller is cancelled, interrupted, or closed where it waits."""
        if is_collected(error):
            call.meter.leave(lambda: call.meter.gate._abandon(call, ask))  # noqa: SLF001
        else:
            self._abandon(call, ask)

    def _withdraw(self, ask: Ask) -> bool:
        """Take a caller out of the queue; false if it was served in that moment."""
        wallet = ask.call.wallet
        with wallet.lock:
            if wallet.asks and ask in wallet.asks:
                wallet.asks.remove(ask)
                return True
        return False

    # -- without the ledger -----------------------------------------------------------------------------

    def alone(self, wallet: Wallet, call: Call, boot_s: float) -> Outcome:
        """Judge without the ledger (the wallet's lock is held)."""
        if not self._meter.options.fail_open and not call.forced:
            raise PaygentUnavailable("the ledger cannot be asked, and init(fail_open=False)")
        return self.judge_alone(wallet, call, boot_s)

    def judge_alone(self, wallet: Wallet, call: Call, boot_s: float) -> Outcome:
        """Judge *call* by what this process knows (the wallet's lock is held)."""
        wallet.stale = True
        if wallet.tariff is None:
            self.open_alone(wallet, boot_s)
        account = wallet.account
        assert account is not None
        if not account.sdk_enabled:
            return PASSES
        if wallet.session_of(call.session_id, boot_s) is None or wallet.ready_until_s <= boot_s:
            self._windows_alone(wallet, call.session_id, boot_s)
        return call.attempt_alone(wallet, boot_s)

    def open_alone(self, wallet: Wallet, boot_s: float) -> None:
        """A user never seen, and no ledger: what was last known of him, else the plans of this process."""
        known = self._meter.options.remembered(wallet.user_id)
        if known is not None:
            wallet.recall(known, self._meter.tariff(known.plan), self._meter.now_us(), boot_s)
            self._windows_alone(wallet, None, boot_s)
            return
        wallet.account = Account(wallet.user_id)
        wallet.offset_us = self._meter.now_us() - int(boot_s * 1e6)
        config = self._meter.plans.get(DEFAULT_PLAN)
        row = PlanRow(DEFAULT_PLAN, "alone", config.model_dump_json() if config else None)
        wallet.limited_by(self._meter.tariff(row))
        self._windows_alone(wallet, None, boot_s)

    def _windows_alone(self, wallet: Wallet, own_id: str | None, boot_s: float) -> None:
        assert wallet.tariff is not None
        assert wallet.account is not None
        now_us = wallet.now_us(boot_s)
        session = wallet.session_of(own_id, boot_s)
        if session is None:
            session_id = own_id or str(uuid.uuid4())
            timeout_s = wallet.tariff.plan.session_timeout_s
            session = Session(session_id, session_window(session_id, now_us, timeout_s))
        wallet.windows(billing_period(wallet.account.period, now_us), own_id, session)

    # -- refusals and callbacks -------------------------------------------------------------------------

    def _refuse(self, call: Call, wallet: Wallet, outcome: Outcome | None) -> None:
        with wallet.lock:
            if isinstance(outcome, Denied):
                refusal = refusals.of_denied(call, wallet, outcome)
            else:
                assert isinstance(outcome, Blocked)
                refusal = refusals.of_blocked(call, wallet, outcome)
        blocks = self._meter.options.raise_on_hard_gate and not call.payer.reports_only
        self._gate(call, refusal.guard_result, blocked=blocks)
        fire(self._meter.callbacks.hard_gate, refusal.guard_result)
        if blocks:
            raise PaygentLimitExceeded(refusal.guard_result, refusal)
        with wallet.lock:
            boot_s = self._boot()
            if wallet.tariff is not None and wallet.session_of(call.session_id, boot_s) is None:
                self._windows_alone(wallet, call.session_id, boot_s)  # it queued before they were asked for
            call.force(wallet, boot_s)
        if call.state is not HELD:
            call.state = PASSES

    def crossed_soft(self, call: Call, purse: Any) -> None:
        """Tell of a limit at or above its soft mark: before an admitted call, or after a post crossed it."""
        result = refusals.guard_result(purse, "soft_gate")
        self._gate(call, result, blocked=False)
        fire(self._meter.callbacks.soft_gate, result)

    def _gate(self, call: Call, result: GuardResult, *, blocked: bool) -> None:
        self._meter.audit.add(
            call.user_id,
            self._meter.now_us(),
            result,
            session_id=call.session_id,
            model=call.model,
            blocked=blocked,
            metadata=call.json_metadata(),
        )

    def announce(self, wallet: Wallet) -> None:
        """Tell the callbacks that a user is loaded, once per load."""
        with wallet.lock:
            announce, wallet.announce = wallet.announce, False
        if not announce:
            return
        if self._meter.callbacks.session_start:
            fire(self._meter.callbacks.session_start, self._meter.state_of(wallet))
