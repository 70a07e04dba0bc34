"""The bracket around one provider call: everything happens in ``_begin`` and ``_finish``."""

from __future__ import annotations

import enum
import json
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

from paygent.core.balance import UNLIMITED, Balance, Denied, covers, reserve
from paygent.core.errors import VISIBLE
from paygent.core.plan import MODEL_LIMIT, SESSION_SPEND, TOTAL_SPEND
from paygent.core.usage import Usage, is_empty
from paygent.meter import nesting
from paygent.meter.sizing import Blocked, size

if TYPE_CHECKING:
    from paygent.context import Payer
    from paygent.ledger import Session
    from paygent.meter.habits import Habits
    from paygent.meter.meter import Meter
    from paygent.meter.purse import ModelPurse, Purse
    from paygent.meter.tariff import Tariff, Terms
    from paygent.meter.wallet import Wallet

NO_UNITS = Usage()
_SPENDS = (TOTAL_SPEND, SESSION_SPEND)


def is_collected(error: BaseException) -> bool:
    """
    Whether a coroutine or greenlet is closed where it stood.

    That may be the collector's doing, on a thread that has our locks. A greenlet's is told by name: gevent is
    never imported here.
    """
    return isinstance(error, GeneratorExit) or type(error).__name__ == "GreenletExit"


class State(enum.IntEnum):
    """Where a call is in its life; it only ever moves forward."""

    NEW = 0
    PASSES = 1  # runs unmetered: nobody's, switched off, or a fault of ours
    HELD = 2
    DEFERRED = 3  # a stream owns the settlement
    DONE = 4


# Read off its class, a member takes 0.1 µs on Python 3.11; a call asks for eight.
NEW, PASSES, HELD, DEFERRED, DONE = State

# What became of a call at the gate; State is HELD or PASSES.
Outcome: TypeAlias = State | Denied | Blocked


class Call:
    """
    One metered call.

    Used as ``with call:`` or ``async with call:`` around the provider's answer. Entering gates it, and may
    raise :class:`PaygentLimitExceeded` or :class:`PaygentUnavailable`; the call must then not be made.
    ``finish``, ``finish_estimated`` or ``fail`` settles it, whoever comes first; ``defer`` hands the
    settlement to a stream. Leaving settles what nobody settled.
    """

    __slots__ = (
        "forced", "habits", "input_bytes", "input_estimate", "input_tokens", "is_unseen",
        "max_output_tokens", "metadata", "meter", "model", "need_nusd", "need_tokens", "operation", "payer",
        "pid", "plan", "provider", "purses", "session", "session_id", "soft", "source", "started_us",
        "state", "tariff", "terms", "units", "unsettled", "user_id", "wallet",
    )  # fmt: skip

    terms: Terms  # once it is sized
    habits: Habits
    input_estimate: int  # input tokens as far as they are known before the call

    def __init__(
        self,
        meter: Meter,
        payer: Payer,
        provider: str | None,
        operation: str,
        model: str | None,
        input_bytes: int,
        max_output_tokens: int | None,
        units: Usage | None = None,
    ) -> None:
        self.meter = meter
        self.payer = payer
        self.user_id: str = payer.user_id  # type: ignore[assignment]  # Meter.payer() resolves it first
        self.session_id = payer.session_id
        self.metadata = payer.metadata
        self.plan = payer.plan
        self.provider = provider
        self.operation = operation
        self.model = model
        self.input_bytes = input_bytes
        self.input_tokens: int | None = None  # where the caller gave his own estimate
        self.max_output_tokens = max_output_tokens
        self.units = units
        self.pid = meter.pid
        self.state = NEW
        self.source = "auto"
        self.forced = self.is_unseen = False
        self.soft: Purse | None = None
        self.tariff: Tariff | None = None
        self.need_nusd = self.need_tokens = 0
        # Known once it is sized and held: terms, habits, input_estimate; wallet, purses, session, started_us.
        self.session: Session | None = None

    def __enter__(self) -> Call:
        try:
            self.meter.gate.begin(self)
        except VISIBLE as refusal:
            self._refused(refusal)
            raise
        if self.payer.tally is not None:
            self.payer.tally.admitted()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.state is HELD:
            self._leave(error)

    async def __aenter__(self) -> Call:
        try:
            await self.meter.gate.begin_async(self)
        except VISIBLE as refusal:
            self._refused(refusal)
            raise
        if self.payer.tally is not None:
            self.payer.tally.admitted()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.state is HELD:
            self._leave(error)

    def _refused(self, refusal: Exception) -> None:
        if self.payer.tally is not None:
            self.payer.tally.refused(refusal)

    def _leave(self, error: BaseException | None) -> None:
        if error is not None and is_collected(error):
            self.meter.leave(lambda: self.fail(GeneratorExit()))
        elif error is not None:
            self.fail(error)
        else:
            self.finish_estimated(None, 0)

    # -- settling -------------------------------------------------------------------------------------

    def finish(self, usage: Usage, response_model: str | None = None, tools: Sequence[str] = ()) -> None:
        """Post what the provider reported; a report of nothing is none."""
        if not usage.input_tokens and is_empty(usage):
            self.finish_estimated(None, 0, response_model, tools)
            return
        self.meter.settle(self, usage, response_model, tools, estimated=False)

    def finish_estimated(
        self,
        partial: Usage | None,
        output_bytes: int,
        response_model: str | None = None,
        tools: Sequence[str] = (),
    ) -> None:
        """Post an estimate: input from *partial* or the request, output from the bytes seen, at least 1."""
        if not self.is_open:
            return
        if partial is None and self.units is not None and not output_bytes:
            self.meter.settle(self, self.units, response_model, tools, estimated=True)
            return
        input_tokens = (
            partial.input_tokens if partial is not None and partial.input_tokens else self.input_estimate
        )
        output_tokens = max(1, (output_bytes + 3) // 4, partial.output_tokens if partial is not None else 0)
        usage = (partial or self.units or NO_UNITS)._replace(
            input_tokens=input_tokens, output_tokens=output_tokens
        )
        self.meter.settle(self, usage, response_model, tools, estimated=True)

    def fail(self, error: BaseException | None) -> None:
        """The provider refused, or the caller gave up; see :meth:`Meter.fail`."""
        self.meter.fail(self, error)

    def defer(self) -> None:
        """A stream settles this call from now on."""
        if self.state is HELD:
            self.state = DEFERRED
            nesting.remember(self)

    @property
    def is_open(self) -> bool:
        """Whether the call holds something that must still be settled."""
        return self.state is HELD or self.state is DEFERRED

    # -- sizing ---------------------------------------------------------------------------------------

    def need_by_scope(self) -> dict[str, int]:
        """What the call needs, for the ledger; nothing before its plan is known."""
        tariff = self.tariff
        if tariff is None or self.forced:
            return {}
        need = {TOTAL_SPEND: self.need_nusd, SESSION_SPEND: self.need_nusd}
        if self.model is not None:
            need[MODEL_LIMIT + self.terms.model] = self.need_tokens
        return {
            scope: amount for scope, amount in need.items() if tariff.plan.limit_of(scope).hard < UNLIMITED
        }

    # -- holding (the wallet's lock is held) -----------------------------------------------------------

    def attempt(self, wallet: Wallet, boot_s: float) -> Outcome | None:
        """Take the holds out of the wallet; ``None``: the ledger must be asked."""
        if wallet.override is not None:
            return self.meter.gate.judge_alone(wallet, self, boot_s)
        tariff = wallet.tariff
        if tariff is None or boot_s >= wallet.ready_until_s:
            return None
        if self.plan is not None and self.plan != wallet.moved_to:
            return None
        if (
            wallet.session is None
            if self.session_id is None
            else wallet.session_of(self.session_id, boot_s) is None
        ):
            return None
        if not wallet.account.sdk_enabled:  # type: ignore[union-attr]  # known once there is a tariff
            return PASSES
        if tariff is not self.tariff and (blocked := size(self, tariff)) is not None:
            return blocked
        purses = self._purses(wallet, boot_s)
        if purses is None:
            return None
        period, session, tokens = purses
        need = self.need_nusd
        if not (
            covers(period.held, need, period.lease)
            and covers(session.held, need, session.lease)
            and (tokens is None or covers(tokens.held, self.need_tokens, tokens.lease))
        ):
            refused = wallet.refused
            if refused is not None and boot_s < wallet.refused_until_s and self._is_refused(refused):
                return Denied(refused[0], busy=False)
            if not self.forced:
                return None
        self._take(purses, wallet, boot_s)
        return HELD

    def attempt_alone(self, wallet: Wallet, boot_s: float) -> Outcome:
        """Judge by what is known here, against the whole limit: the ledger is away or was overridden."""
        tariff = wallet.tariff
        assert tariff is not None
        if tariff is not self.tariff and (blocked := size(self, tariff)) is not None:
            return blocked
        purses = self._purses(wallet, boot_s)
        assert purses is not None
        balances = {p.scope: Balance(p.hard, p.used, p.held) for p in purses if p is not None}
        outcome = reserve(balances, self.need_by_scope(), exact=tariff.plan.exact, slice_calls=0)
        if isinstance(outcome, Denied):
            return outcome
        self._take(purses, wallet, boot_s)
        return HELD

    def force(self, wallet: Wallet, boot_s: float) -> None:
        """Hold without room: the call runs all the same (``raise_on_hard_gate=False``)."""
        tariff = wallet.tariff
        if tariff is not None and tariff is not self.tariff:
            size(self, tariff)  # one that never came to its turn; what blocks it is not asked here
        purses = self._purses(wallet, boot_s)
        if purses is not None:
            self._take(purses, wallet, boot_s)

    def _is_refused(self, refused: tuple[str, bool, int, str | None]) -> bool:
        """Whether a refusal remembered for *scope* covers this call: a smaller one may still fit exactly."""
        scope, exact, amount, session_id = refused
        if self.forced or (scope not in _SPENDS and (self.model is None or scope != self.terms.scope)):
            return False
        if scope == SESSION_SPEND and session_id != self.session_id:
            return False  # another session has room of its own
        return not exact or (self.need_nusd if scope in _SPENDS else self.need_tokens) >= amount

    def _purses(self, wallet: Wallet, boot_s: float) -> tuple[Purse, Purse, ModelPurse | None] | None:
        if self.session_id is None:
            session_purse = wallet.session_purse
            self.session = wallet.session
            if session_purse is None:
                return None
        else:
            self.session = wallet.session_of(self.session_id, boot_s)
            if self.session is None:
                return None
            session_purse = wallet.purse(SESSION_SPEND, self.session.window)
        if self.model is None:
            return wallet.period_purse, session_purse, None  # type: ignore[return-value]  # see above
        return wallet.period_purse, session_purse, wallet.purse_of(self.terms.scope)  # type: ignore[return-value]

    def _take(self, purses: tuple[Purse, Purse, ModelPurse | None], wallet: Wallet, boot_s: float) -> None:
        period, session, tokens = purses
        period.held += self.need_nusd
        session.held += self.need_nusd
        if period.posted + period.unsettled >= period.soft:
            self.soft = period
        elif session.posted + session.unsettled >= session.soft:
            self.soft = session
        if tokens is not None:
            tokens.held += self.need_tokens
            if self.soft is None and tokens.posted + tokens.unsettled >= tokens.soft:
                self.soft = tokens
        self.purses = purses
        self.wallet = wallet
        if not self.need_nusd:
            wallet.unseen += 1  # nothing else says that a call is open here
            self.is_unseen = True
        if (
            period.lease - period.held < period.low
            or session.lease - session.held < session.low
            or (tokens is not None and tokens.lease - tokens.held < tokens.low)
        ):
            wallet.wish(self)
        self.started_us = int(boot_s * 1e6) + wallet.offset_us
        self.unsettled = True
        self.state = HELD

    def holds_on(self, purse: Purse) -> int:
        """What this call holds on *purse*."""
        period, session, tokens = self.purses
        if purse is tokens:
            return self.need_tokens
        return self.need_nusd if purse is period or purse is session else 0

    def json_metadata(self) -> dict[str, Any] | None:
        """The caller's metadata as JSON can hold it: what it cannot is kept as text."""
        if not self.metadata:
            return None
        try:
            text = json.dumps(self.metadata, default=str, skipkeys=True)
            loaded: dict[str, Any] = json.loads(text, parse_constant=str)
        except Exception:  # noqa: BLE001  # objects of the caller's: whatever they raise, the event stays
            self.meter.own_fault("reading metadata")
            return {"paygent": "the metadata could not be kept"}
        return loaded

    def _be_seen(self) -> None:
        self.is_unseen = False
        self.wallet.unseen -= 1

    def release(self) -> None:
        """Void the holds."""
        if self.is_unseen:
            self._be_seen()
        period, session, tokens = self.purses
        period.close(self.need_nusd, 0)
        session.close(self.need_nusd, 0)
        if tokens is not None:
            tokens.close(self.need_tokens, 0)
        self.need_nusd = self.need_tokens = 0

    def post(self, cost_nusd: int, tokens: int) -> Purse | None:
        """Void the holds and post the true amounts; returns a purse that this carries over its soft mark."""
        if self.is_unseen:
            self._be_seen()
        period, session, tokens_purse = self.purses
        need_nusd = self.need_nusd
        crossed = period if period.close(need_nusd, cost_nusd) else None
        if session.close(need_nusd, cost_nusd):
            crossed = session
        if tokens_purse is not None:
            if tokens_purse.close(self.need_tokens, tokens):
                crossed = tokens_purse
            tokens_purse.cost_unsettled += cost_nusd
        self.need_nusd = self.need_tokens = 0
        return crossed
