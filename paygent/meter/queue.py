"""The queue of callers who wait for room: served first come, first served, as the ledger answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paygent.core.balance import Denied
from paygent.core.plan import TOTAL_SPEND
from paygent.meter.call import Outcome, State
from paygent.meter.nesting import must_not_wait
from paygent.meter.sizing import size
from paygent.meter.wallet import Ask, Wallet

if TYPE_CHECKING:
    from paygent.meter.meter import Meter

SPENT_MEMORY_S = 0.25
POLL_FIRST_S = 0.01
POLL_MAX_S = 0.25
ROUNDS_MAX = 8
LEFT_S = 5.0  # who has not come back so long after his time does not wait any more: his loop was closed
GOES_S = 1.0  # unless the process was stopped: then he comes back, and withdraws, within so long


class Queue:
    """Who waits at which wallet; ``polling`` are the wallets whose head asks again after a while."""

    def __init__(self, meter: Meter) -> None:
        self.polling: set[Wallet] = set()
        self._meter = meter
        self._boot = meter.boot

    def freed(self, wallet: Wallet) -> None:
        """Room came back to a wallet: whoever queues there may go on."""
        if wallet.asks and self.serve(wallet, None, busy=False):
            self._meter.exporter.submit(wallet)

    def serve(self, wallet: Wallet, denied: str | None, *, busy: bool) -> bool:
        """Let the queue in, first come, first served; true: the head needs the ledger (again)."""
        served: list[tuple[Ask, Outcome]] = []
        boot_s = self._boot()
        with wallet.lock:
            again = self._serve(wallet, denied, busy, boot_s, served)
            if wallet.asks and not again:
                self.polling.add(wallet)
            else:
                self.polling.discard(wallet)
            wallet.asks = wallet.asks or None  # an empty queue would be a fifth of an idle wallet
        for ask, outcome in served:
            _answer(ask, outcome)
        return again

    def _serve(
        self, wallet: Wallet, denied: str | None, busy: bool, boot_s: float, served: list[tuple[Ask, Outcome]]
    ) -> bool:
        self._turn_away_left(wallet, boot_s, served)
        if wallet.asks and wallet.asks[0] is not wallet.asking:
            denied = None  # it was for a caller who has gone away meanwhile
        self._serve_forced(wallet, boot_s, served)
        while wallet.asks:
            ask = wallet.asks[0]
            outcome = ask.call.attempt(wallet, boot_s)
            if outcome is None and denied is not None:
                if busy and self._turn_away_nested(wallet, denied, served):
                    denied = None
                    continue
                if busy:
                    wallet.busy_on = denied
                    _ask_in_a_while(wallet, boot_s)
                    return False
                need = ask.call.need_by_scope().get(denied, 0)
                wallet.refused = (denied, self._is_exact(wallet), need, ask.call.session_id)
                wallet.refused_until_s = boot_s + SPENT_MEMORY_S
                outcome = Denied(denied, busy=False)
            if outcome is None:
                ask.rounds += wallet.asking is ask
                if ask.rounds <= ROUNDS_MAX:
                    return True
                # It was granted and does not fit: whatever may be the reason, the ledger must not spin on it.
                _ask_in_a_while(wallet, boot_s)
                return False
            denied, wallet.poll_s, wallet.poll_at_s = None, 0.0, 0.0
            wallet.busy_on = None
            wallet.asks.popleft()
            served.append((ask, outcome))
            if ask is wallet.asking:
                wallet.stay_within()  # it may need less by now than it asked for
        return False

    def _turn_away_left(self, wallet: Wallet, boot_s: float, served: list[tuple[Ask, Outcome]]) -> None:
        """Nobody stands behind a caller who is gone: a task whose event loop was closed never looks again."""
        until_s = boot_s - self._meter.options.busy_timeout_s - LEFT_S
        while wallet.asks and wallet.asks[0].since_s < until_s and not wallet.asks[0].call.forced:
            ask = wallet.asks[0]
            if ask.late_s is None:
                ask.late_s = boot_s
            if boot_s - ask.late_s < GOES_S:
                return
            served.append((wallet.asks.popleft(), Denied(wallet.busy_on or TOTAL_SPEND, busy=True)))

    def _serve_forced(self, wallet: Wallet, boot_s: float, served: list[tuple[Ask, Outcome]]) -> None:
        """Let in whoever needs no room, past all others; nobody in front of him is in his way."""
        for ask in tuple(wallet.asks or ()):
            outcome = ask.call.attempt(wallet, boot_s) if ask.call.forced else None
            if outcome is not None:
                assert wallet.asks is not None
                wallet.asks.remove(ask)
                served.append((ask, outcome))

    def _turn_away_nested(self, wallet: Wallet, scope: str, served: list[tuple[Ask, Outcome]]) -> bool:
        """Decide about callers who wait for their own streams; whether the head of the queue was one."""
        head, tariff = wallet.asks[0] if wallet.asks else None, wallet.tariff
        for ask in tuple(wallet.asks or ()):
            if ask.outer and tariff is not None and tariff is not ask.call.tariff and size(ask.call, tariff):
                ask.call.tariff = None  # no plan covers it: its turn will say so
                continue
            if ask.outer and must_not_wait(ask.call, ask.outer, wallet, scope):
                assert wallet.asks is not None
                wallet.asks.remove(ask)
                served.append((ask, Denied(scope, busy=True)))
        return not wallet.asks or wallet.asks[0] is not head

    def _is_exact(self, wallet: Wallet) -> bool:
        return wallet.tariff is not None and wallet.tariff.plan.exact

    def turn_away(self, wallet: Wallet) -> None:
        """The ledger is away: whoever queues is judged by what is known here."""
        served: list[tuple[Ask, Outcome]] = []
        boot_s = self._boot()
        with wallet.lock:
            while wallet.asks:
                ask = wallet.asks.popleft()
                try:
                    served.append((ask, self._meter.gate.alone(wallet, ask.call, boot_s)))
                except Exception as fault:  # noqa: BLE001  # it belongs to the caller who waits
                    ask.future.set_exception(fault)
            wallet.asks = None
        self.polling.discard(wallet)
        for ask, outcome in served:
            _answer(ask, outcome)


def _ask_in_a_while(wallet: Wallet, boot_s: float) -> None:
    wallet.poll_s = min(max(wallet.poll_s * 2, POLL_FIRST_S), POLL_MAX_S)
    wallet.poll_at_s = boot_s + wallet.poll_s


def _answer(ask: Ask, outcome: Outcome) -> None:
    if ask.future.set_running_or_notify_cancel():
        ask.future.set_result(outcome)
    elif outcome is State.HELD:
        ask.call.release()
        ask.call.state = State.DONE
