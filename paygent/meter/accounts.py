"""Plans and users on behalf of the public object: loading, assigning, recording."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from paygent.core.bounds import EVENT_COST_USD_MAX, EVENT_TOKENS_MAX
from paygent.core.events import Event
from paygent.core.models import BillingPeriod, PlanConfig
from paygent.core.pricing import usd_to_nusd
from paygent.core.usage import Usage
from paygent.core.windows import billing_period, to_us
from paygent.ledger import DEFAULT_PLAN, Ledger, LedgerError, PlanRow
from paygent.meter import settlement
from paygent.meter.call import Call, State
from paygent.meter.ids import id_for_key

if TYPE_CHECKING:
    from paygent.context import Payer
    from paygent.meter.meter import Meter
    from paygent.meter.wallet import Wallet

log = logging.getLogger("paygent")

T = TypeVar("T")
KEYS_MAX = 10_000


# -- asking ------------------------------------------------------------------------------------------------


def ask(meter: Meter, question: Callable[[Ledger], T], otherwise: T) -> T:
    """Ask the ledger; *otherwise* where it does not answer."""
    if meter.degraded or meter.closed:
        return otherwise
    return _answered(meter, meter.exporter.call(question), otherwise)


def _answered(meter: Meter, future: Future[T], otherwise: T) -> T:
    if not meter.patience.wait(future):
        meter.gate.look()
        return otherwise
    try:
        return future.result()
    except LedgerError as error:
        log.warning("%s", error)
    return otherwise


def is_loaded(wallet: Wallet, boot_s: float) -> bool:
    """Whether a wallet can be judged by; what is older than a second is asked for anew in passing."""
    if boot_s - wallet.answered_s > 1.0:
        wallet.stale = True
    return (
        wallet.tariff is not None
        and wallet.period is not None
        and wallet.ready_until_s > 0.0  # 0: a plan was configured or assigned since
        and int(boot_s * 1e6) + wallet.offset_us < wallet.period.end_us
    )


def loaded(meter: Meter, user_id: str, *, fresh: bool = False) -> Wallet:
    """The wallet of a user with its plan and windows known; no session begins by that."""
    wallet = meter.wallet(user_id)
    boot_s = meter.boot()
    wallet.touched_s = boot_s  # or the next tick would take it for one that nobody needs
    if (fresh or not is_loaded(wallet, boot_s)) and not meter.degraded and not meter.closed:
        _answered(meter, meter.exporter.refresh(wallet), None)
    if wallet.gone:  # dropped from memory meanwhile: the next one is loaded
        return loaded(meter, user_id, fresh=fresh)
    if wallet.tariff is None:
        with wallet.lock:
            meter.gate.open_alone(wallet, boot_s)
    return wallet


# -- plans and users ---------------------------------------------------------------------------------------


def put_plan(meter: Meter, name: str, config: PlanConfig) -> None:
    """Register a plan; it binds the next call of each of its users."""
    text = config.model_dump_json()
    meter.plans[name] = config.model_copy(deep=True)
    if not meter.closed:
        meter.changes.put(lambda ledger: ledger.put_plan(name, text))
    for wallet in tuple(meter.wallets.values()):
        with wallet.lock:
            _outdate(wallet)


def _outdate(wallet: Wallet) -> None:
    """The limits may be others now: ask before the next call, and hand back what is leased and idle."""
    wallet.ready_until_s, wallet.refused = 0.0, None
    for purse in wallet.purses.values():
        if purse.finite:
            purse.lease = min(purse.lease, purse.held)


def refreshed(meter: Meter, user_id: str) -> Wallet:
    """The wallet as the ledger knows it, local edits undone; where it is away they stay."""
    wallet = meter.wallet(user_id)
    with wallet.lock:
        edited, wallet.override = wallet.override, None
        posted = {purse: purse.posted for purse in wallet.purses.values()} if edited is not None else {}
        for purse in posted:
            purse.posted = 0
        _outdate(wallet)
    found = loaded(meter, user_id, fresh=True)
    if meter.degraded or meter.closed:
        with wallet.lock:
            wallet.override = edited
            for purse, amount in posted.items():
                purse.posted = amount
    return found


def put_account(meter: Meter, user_id: str, changes: Mapping[str, Any]) -> Wallet:
    """Change what the ledger knows of a user, then load him; usage is never touched."""
    came_through = not changes
    if changes and not meter.closed:
        came_through = meter.changes.put(lambda ledger: ledger.put_account(user_id, changes))
    wallet = meter.wallet(user_id)
    with wallet.lock:
        _outdate(wallet)
        wallet.moved_to = None
    wallet = loaded(meter, user_id, fresh=came_through)
    if changes and (wallet.override is not None or not came_through):
        _put_here(meter, wallet, changes)
    return wallet


def _put_here(meter: Meter, wallet: Wallet, changes: Mapping[str, Any]) -> None:
    """Make the change in this process, where the ledger is away or an edited state has the last word."""
    known = {name: config.model_dump_json() for name, config in tuple(meter.plans.items())}
    known.update(_plans(meter))
    with wallet.lock:
        assert wallet.account is not None
        account = wallet.account = wallet.account._replace(**changes)
        if "period" in changes:
            now_us = wallet.now_us(meter.boot())
            wallet.windows(billing_period(account.period, now_us), None, None)
        name = account.plan or DEFAULT_PLAN
        text = account.own_config or known.get(name)
        if text is not None:
            wallet.limited_by(meter.tariff(PlanRow(name, "here", text)))


def _plans(meter: Meter) -> dict[str, str]:
    """The plans that the ledger knows, as JSON by name."""
    none: dict[str, str] = {}
    return ask(meter, lambda ledger: ledger.plans(), none)


def assign(meter: Meter, user_id: str, plan: str, period: BillingPeriod | None) -> Wallet:
    """Put a user on a plan; without *period* the assigned one stays as it is."""
    changes: dict[str, Any] = {"plan": plan, "own_config": None}
    if period is not None:
        changes["period"] = (to_us(period.start), to_us(period.end))
    return put_account(meter, user_id, changes)


def start(meter: Meter, user_id: str, plan: str, config: PlanConfig | None) -> Wallet:
    """Load a user; a *config* becomes his limits, and a registered *plan* other than the default his plan."""
    changes: dict[str, Any] = {}
    if config is not None:
        changes["own_config"] = config.model_dump_json()
        if plan != DEFAULT_PLAN:
            changes["plan"] = plan
    elif plan != DEFAULT_PLAN and _may_take(meter, user_id, plan):
        changes.update(plan=plan, own_config=None)
    return put_account(meter, user_id, changes)


def hand_over(meter: Meter, user_id: str, plan: str) -> None:
    """Put a user on the *plan* that his next call names, as that call would: if it is registered."""
    wallet = loaded(meter, user_id)
    if meter.degraded or meter.closed or wallet.override is not None:  # a call moves nobody then
        return
    if plan == wallet.moved_to or (wallet.account is not None and wallet.account.plan == plan):
        return
    if plan not in meter.plans and plan not in _plans(meter):
        return
    wallet = put_account(meter, user_id, {"plan": plan, "own_config": None})
    with wallet.lock:
        wallet.moved_to = plan


def _may_take(meter: Meter, user_id: str, plan: str) -> bool:
    """Whether a user may be put on *plan*: a name that nobody knows takes no limits off an assigned plan."""
    if plan in meter.plans or plan in _plans(meter):
        return True
    account = loaded(meter, user_id, fresh=True).account
    if account is None or (account.plan is None and account.own_config is None):
        return True
    meter.warn_once(
        f"start {plan}",
        f"start_session: no plan named {plan!r} is configured; the user keeps the present plan",
    )
    return False


# -- usage that no SDK call stands for ----------------------------------------------------------------------


class Recorder:
    """Posts manual events, and remembers the keys of this process: the ledger knows the others."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        # Without a lock: a fork must not inherit one that is held. ``setdefault`` is one step.
        self._by_id: dict[str, Event | object | None] = {}

    def record(
        self,
        payer: Payer,
        *,
        cost: float | None,
        model: str | None,
        usage: Usage,
        description: str | None,
        key: str | None,
    ) -> Event | None:
        """Post usage without a gate; a known *key* returns the event that it stands for."""
        assert payer.user_id is not None
        event_id = None if key is None else id_for_key(payer.user_id, key)
        if event_id is None:
            return self._post(payer, cost, model, usage, description, None)
        if len(self._by_id) >= KEYS_MAX:
            self._by_id.clear()
        mine = object()  # stands for the event while it is being recorded
        known = self._by_id.setdefault(event_id, mine)
        if known is not mine:
            return known if isinstance(known, Event) else None
        try:
            event = self._by_id[event_id] = self._post(payer, cost, model, usage, description, event_id)
        finally:
            if self._by_id.get(event_id) in (mine, None):
                self._by_id.pop(event_id, None)
        return event

    def _post(
        self,
        payer: Payer,
        cost: float | None,
        model: str | None,
        usage: Usage,
        description: str | None,
        event_id: str | None,
    ) -> Event | None:
        meter = self._meter
        call = Call(meter, payer, None, "manual", model, 0, None)
        call.forced, call.source = True, "manual"
        meter.gate.begin(call)
        if call.state is not State.HELD:
            return None
        if cost is None and call.terms.rates is None:
            meter.unpriced(model)
        return settlement.settle(
            meter,
            call,
            usage,
            None,
            (),
            estimated=False,
            event_id=event_id,
            cost=None if cost is None else usd_to_nusd(cost),
            description=description,
        )


def checked_amounts(cost: object, model: object, input_tokens: object, output_tokens: object) -> None:
    """
    Check the amounts of a manual event.

    Raises:
        ValueError: Negative, NaN or infinite cost; negative or non-integer tokens; neither cost nor model.
    """
    if cost is None and model is None:
        raise ValueError("give either cost, or model with input_tokens and output_tokens")
    if cost is not None and not _is_cost(cost):
        raise ValueError(f"cost must be a finite amount of US dollars, zero or more, not {cost!r}")
    for name, tokens in (("input_tokens", input_tokens), ("output_tokens", output_tokens)):
        checked_tokens(name, tokens)


def _is_cost(cost: object) -> bool:
    if isinstance(cost, bool) or not isinstance(cost, (int, float)):
        return False
    return math.isfinite(cost) and 0 <= cost <= EVENT_COST_USD_MAX


def checked_tokens(name: str, tokens: object) -> None:
    """
    Check a number of tokens that the caller gave.

    Raises:
        ValueError: Negative, absurdly large, or not an integer.
    """
    if isinstance(tokens, bool) or not isinstance(tokens, int) or not 0 <= tokens <= EVENT_TOKENS_MAX:
        raise ValueError(f"{name} must be a whole number, zero or more, not {tokens!r}")


def checked_label(name: str, value: object) -> None:
    """
    Check a text that a ledger is to store.

    Raises:
        ValueError: It is no text, or holds a lone surrogate.
    """
    if value is None:
        return
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, not {type(value).__name__}")  # noqa: TRY004  # as documented
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} holds a lone surrogate, which no encoding can store") from error
