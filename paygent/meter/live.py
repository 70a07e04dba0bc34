"""
The live state of a user: a public model that shows what the wallet knows, and whose edits are obeyed.

An edited state is judged by this process alone (``Wallet.override``): the ledger goes on counting, and is no
longer asked. ``Paygent.refresh_user`` and ``Paygent.reset_user`` end that.
"""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from paygent.core.models import WATCH, BillingPeriod, CurrentUsage, PaygentModel, UserState
from paygent.core.plan import MODEL_LIMIT, NUSD_PER_USD, compile_plan
from paygent.core.pricing import usd_to_nusd
from paygent.core.windows import billing_period, from_us, session_window, to_us
from paygent.ledger import Session
from paygent.meter.purse import ModelPurse, model_scope
from paygent.meter.tariff import Tariff

if TYPE_CHECKING:
    from paygent.meter.meter import Meter
    from paygent.meter.wallet import Wallet


def usage_of(wallet: Wallet, now_us: int | None = None) -> CurrentUsage:
    """
    What the user has used, as a new object; a session that ended before *now_us* is over.

    The wallet's lock is held by the caller.
    """
    tokens: dict[str, int] = {}
    cost: dict[str, float] = {}
    reserved: dict[str, int] = {}
    window = wallet.period.key if wallet.period is not None else ""
    for (scope, key), purse in sorted(wallet.purses.items()):
        if key == window and isinstance(purse, ModelPurse):
            model = scope[len(MODEL_LIMIT) :]
            _note(tokens, model, purse.used)
            _note(reserved, model, purse.held)
            _note(cost, model, purse.cost_used / NUSD_PER_USD)
    period, session, session_purse = wallet.period_purse, wallet.session, wallet.session_purse
    if session is not None and now_us is not None and now_us >= session.window.end_us:
        session = session_purse = None
    return CurrentUsage(
        period_cost=period.used / NUSD_PER_USD if period else 0.0,
        session_cost=session_purse.used / NUSD_PER_USD if session_purse else 0.0,
        session_id=session.session_id if session else None,
        session_started_at=from_us(session.window.start_us) if session else None,
        period_tokens_total=sum(tokens.values()),
        period_tokens_by_model=tokens,
        period_cost_by_model=cost,
        reserved_cost=period.held / NUSD_PER_USD if period else 0.0,
        reserved_tokens_by_model=reserved,
    )


def _note(amounts: dict[str, Any], model: str, amount: float) -> None:
    if amount:
        amounts[model] = amount


def live_state(meter: Meter, wallet: Wallet) -> UserState:
    """The one live state of a user; it is kept up to date for as long as somebody holds any part of it."""
    with wallet.lock:
        state: UserState | None = wallet.live
        if state is None:
            assert wallet.tariff is not None
            state = UserState(
                user_id=wallet.user_id,
                plan=wallet.tariff.plan.name,
                plan_config=wallet.tariff.plan.config.model_copy(deep=True),
                current_usage=CurrentUsage(),
            )
            wallet.state = weakref.ref(state)
            _watch(state, _Editor(meter, wallet, state))
        refresh(wallet, wallet.now_us(meter.boot()))
    return state


def refresh(wallet: Wallet, now_us: int | None = None) -> None:
    """Show in the live state, if anybody holds one, what the wallet knows (its lock is held)."""
    state: UserState | None = wallet.live
    account, tariff = wallet.account, wallet.tariff
    if state is None or tariff is None or account is None:
        return
    shown = state.__dict__
    shown["plan"], shown["sdk_enabled"] = tariff.plan.name, account.sdk_enabled
    shown["paygent_user_id"] = account.paygent_user_id
    if wallet.answered_s:
        shown["last_refreshed"] = from_us(wallet.now_us(wallet.answered_s))
    if tariff.plan.config != state.plan_config:
        shown["plan_config"] = tariff.plan.config.model_copy(deep=True)
        _watch(shown["plan_config"], shown[WATCH])
    _show_period(wallet, state)
    state.current_usage.__dict__.update(usage_of(wallet, now_us).__dict__)
    _watch(state.current_usage, shown[WATCH])


def _show_period(wallet: Wallet, state: UserState) -> None:
    """An assigned billing period as it runs now; none for the calendar month."""
    period = None
    if wallet.account is not None and wallet.account.period is not None and wallet.period is not None:
        period = BillingPeriod(start=from_us(wallet.period.start_us), end=from_us(wallet.period.end_us))
    if period != state.billing_period:
        state.__dict__["billing_period"] = period
        if period is not None:
            _watch(period, state.__dict__[WATCH])


class _Editor:
    """
    Hears of every assignment within a live state and makes the wallet obey it.

    It keeps the state alive for whoever holds but a part of it, such as ``state.current_usage``.
    """

    def __init__(self, meter: Meter, wallet: Wallet, state: UserState) -> None:
        self._meter = meter
        self._wallet = wallet
        self._state = state

    def __deepcopy__(self, memo: object) -> None:
        """A copy of a live state is a plain value."""

    def __reduce__(self) -> tuple[object, ...]:
        return type(None), ()

    def __call__(self, edited: PaygentModel, name: str) -> None:
        wallet, state = self._wallet, self._state
        with wallet.lock:
            if wallet.live is not state:
                return  # reset_user() made this one a memory
            wallet.override = state  # held from now on: what was edited must not be forgotten
            self._obey(wallet, state, edited, name)
            _watch(state, self)

    def _obey(self, wallet: Wallet, state: UserState, edited: PaygentModel, name: str) -> None:
        if isinstance(edited, CurrentUsage):
            _assign_usage(wallet, edited, name)
        elif isinstance(edited, BillingPeriod) or name == "billing_period":
            _assign_period(wallet, state.billing_period, wallet.now_us(self._meter.boot()))
        elif isinstance(edited, UserState) and name == "sdk_enabled":
            if wallet.account is not None:
                wallet.account = wallet.account._replace(sdk_enabled=state.sdk_enabled)
        elif isinstance(edited, UserState) and name == "current_usage":
            for field in CurrentUsage.model_fields:
                _assign_usage(wallet, state.current_usage, field)
        elif not isinstance(edited, UserState) or name in ("plan", "plan_config"):
            config = self._meter.plans.get(state.plan) if name == "plan" else None
            plan = compile_plan(state.plan, (config or state.plan_config).model_copy(deep=True))
            wallet.limited_by(Tariff(plan, self._meter.options.lookup, self._meter.habits))


def _assign_usage(wallet: Wallet, usage: CurrentUsage, name: str) -> None:
    if name == "period_cost" and wallet.period_purse is not None:
        purse = wallet.period_purse
        purse.posted = usd_to_nusd(usage.period_cost) - purse.unsettled
    elif name == "session_cost":
        _begin_session(wallet)
        if wallet.session_purse is not None:
            purse = wallet.session_purse
            purse.posted = usd_to_nusd(usage.session_cost) - purse.unsettled
    elif name == "period_tokens_by_model" and wallet.period is not None:
        for model, tokens in usage.period_tokens_by_model.items():
            purse = wallet.purse_of(model_scope(model))
            purse.posted = tokens - purse.unsettled


def _begin_session(wallet: Wallet) -> None:
    """Have a session to count in, where none is running."""
    now_us = wallet.now_us(wallet.answered_s)
    if wallet.session is None and wallet.period is not None and wallet.tariff is not None:
        session_id = str(uuid.uuid4())
        window = session_window(session_id, now_us, wallet.tariff.plan.session_timeout_s)
        wallet.windows(wallet.period, None, Session(session_id, window))


def _assign_period(wallet: Wallet, period: BillingPeriod | None, now_us: int) -> None:
    assigned = None if period is None else (to_us(period.start), to_us(period.end))
    if wallet.account is not None:
        wallet.account = wallet.account._replace(period=assigned)
    wallet.windows(billing_period(assigned, now_us), None, None)


def _watch(model: PaygentModel, editor: _Editor) -> None:
    """Watch *model* and everything within it that can be assigned to."""
    model.__dict__[WATCH] = editor
    for name in type(model).model_fields:
        value = model.__dict__[name]
        if isinstance(value, PaygentModel):
            _watch(value, editor)
        elif isinstance(value, dict):
            if not isinstance(value, _WatchedDict) or value.owner is not model:
                value = model.__dict__[name] = _WatchedDict(value)
                value.owner, value.field = model, name
            for item in value.values():
                if isinstance(item, PaygentModel):
                    _watch(item, editor)


class _WatchedDict(dict[str, Any]):
    """A dictionary within a live state: a change of it is an assignment of the whole, checked like any."""

    owner: PaygentModel
    field: str

    def __reduce__(self) -> tuple[object, ...]:
        return dict, (dict(self),)

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return {
            key: value.model_copy(deep=True) if isinstance(value, PaygentModel) else value
            for key, value in self.items()
        }

    def __ior__(self, other: Any) -> _WatchedDict:  # type: ignore[override,misc]  # as dict's own
        self.update(other)
        return self


def _editing(name: str) -> Callable[..., Any]:
    """The method *name* of a dictionary, done on a copy that is then assigned."""
    change: Callable[..., Any] = getattr(dict, name)

    def method(self: _WatchedDict, *args: Any, **kwargs: Any) -> Any:
        changed = dict(self)
        result = change(changed, *args, **kwargs)
        setattr(self.owner, self.field, changed)
        dict.clear(self)
        dict.update(self, getattr(self.owner, self.field))
        return result

    return method


for _name in ("__setitem__", "__delitem__", "update", "pop", "popitem", "clear", "setdefault"):
    setattr(_WatchedDict, _name, _editing(_name))
