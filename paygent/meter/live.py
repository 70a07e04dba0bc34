"""
The live state of a user: a public model that shows what the wallet knows, and whose edits are obeyed.

An edited state is judged by this process alone (``Wallet.override``): the ledger goes on counting, and is no
longer asked. ``Paygent.reset_user`` ends that.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from paygent.core.models import WATCH, BillingPeriod, CurrentUsage, PaygentModel, UserState
from paygent.core.plan import MODEL_COST, MODEL_LIMIT, NUSD_PER_USD, compile_plan
from paygent.core.pricing import usd_to_nusd
from paygent.core.windows import billing_period, from_us, to_us
from paygent.ledger import Bucket
from paygent.meter.tariff import Tariff

if TYPE_CHECKING:
    from paygent.meter.meter import Meter
    from paygent.meter.wallet import Wallet


def usage_of(wallet: Wallet, totals: dict[Bucket, int] | None = None) -> CurrentUsage:
    """
    What the user has used, as a new object. *totals* are the ledger's, for models not met in this process.

    The wallet's lock is held by the caller.
    """
    period, session = wallet.period_purse, wallet.session_purse
    tokens: dict[str, int] = {}
    cost: dict[str, float] = {}
    reserved: dict[str, int] = {}
    window = wallet.period.key if wallet.period is not None else ""
    known = {bucket: amount for bucket, amount in (totals or {}).items() if bucket[1] == window}
    for bucket, purse in wallet.purses.items():
        if bucket[1] == window:
            known[bucket] = purse.used
            if purse.held and purse.scope.startswith(MODEL_LIMIT):
                reserved[purse.scope[len(MODEL_LIMIT) :]] = purse.held
    for (scope, _), amount in sorted(known.items()):
        if amount and scope.startswith(MODEL_LIMIT):
            tokens[scope[len(MODEL_LIMIT) :]] = amount
        elif amount and scope.startswith(MODEL_COST):
            cost[scope[len(MODEL_COST) :]] = amount / NUSD_PER_USD
    return CurrentUsage(
        period_cost=period.used / NUSD_PER_USD if period else 0.0,
        session_cost=session.used / NUSD_PER_USD if session else 0.0,
        session_id=wallet.session.session_id if wallet.session else None,
        session_started_at=from_us(wallet.session.window.start_us) if wallet.session else None,
        period_tokens_total=sum(tokens.values()),
        period_tokens_by_model=tokens,
        period_cost_by_model=cost,
        reserved_cost=period.held / NUSD_PER_USD if period else 0.0,
        reserved_tokens_by_model=reserved,
    )


def live_state(meter: Meter, wallet: Wallet, totals: dict[Bucket, int] | None = None) -> UserState:
    """The one live state of a user; it is kept up to date for as long as somebody holds it."""
    with wallet.lock:
        state = wallet.live
        if state is None:
            state = _build(wallet)
            wallet.state = weakref.ref(state)
            _watch(state, _Editor(meter, wallet))
        refresh(wallet, totals)
    return state


def _build(wallet: Wallet) -> UserState:
    assert wallet.tariff is not None and wallet.account is not None
    return UserState(
        user_id=wallet.user_id,
        plan=wallet.tariff.plan.name,
        plan_config=wallet.tariff.plan.config.model_copy(deep=True),
        current_usage=CurrentUsage(),
        sdk_enabled=wallet.account.sdk_enabled,
    )


def refresh(wallet: Wallet, totals: dict[Bucket, int] | None = None) -> None:
    """Show in the live state, if anybody holds one, what the wallet knows (its lock is held)."""
    state: UserState | None = wallet.live
    if state is None or wallet.tariff is None or wallet.account is None:
        return
    usage = usage_of(wallet, totals)
    shown = state.__dict__
    if totals is None:  # models that this process has not met keep what was read last
        for name in ("period_tokens_by_model", "period_cost_by_model"):
            setattr(usage, name, {**getattr(state.current_usage, name), **getattr(usage, name)})
        usage.period_tokens_total = sum(usage.period_tokens_by_model.values())
    editor = shown.get(WATCH)
    for name in CurrentUsage.model_fields:
        state.current_usage.__dict__[name] = usage.__dict__[name]
    shown["plan"] = wallet.tariff.plan.name
    shown["sdk_enabled"] = wallet.account.sdk_enabled
    if not wallet.override and wallet.tariff.plan.config != state.plan_config:
        shown["plan_config"] = wallet.tariff.plan.config.model_copy(deep=True)
        if editor is not None:
            _watch(shown["plan_config"], editor)
    if wallet.account.period is not None and wallet.period is not None:
        shown["billing_period"] = BillingPeriod(
            start=from_us(wallet.period.start_us), end=from_us(wallet.period.end_us)
        )
    if wallet.answered_s:
        shown["last_refreshed"] = from_us(wallet.now_us(wallet.answered_s))


class _Editor:
    """Hears of every assignment within a live state and makes the wallet obey it."""

    def __init__(self, meter: Meter, wallet: Wallet) -> None:
        self._meter = meter
        self._wallet = wallet

    def __deepcopy__(self, memo: object) -> None:
        """A copy of a live state is a plain value."""

    def __reduce__(self) -> tuple[object, ...]:
        return type(None), ()

    def __call__(self, edited: PaygentModel | None, name: str) -> None:
        wallet = self._wallet
        with wallet.lock:
            state = wallet.live
            if state is None:
                return
            wallet.override = state  # held from now on: what was edited must not be forgotten
            if isinstance(edited, CurrentUsage):
                _assign_usage(wallet, edited, name)
            elif isinstance(edited, UserState) and name == "billing_period":
                _assign_period(wallet, state.billing_period, wallet.now_us(wallet.answered_s))
            elif isinstance(edited, UserState) and name == "sdk_enabled" and wallet.account is not None:
                wallet.account = wallet.account._replace(sdk_enabled=state.sdk_enabled)
            elif not isinstance(edited, UserState) or name in ("plan", "plan_config"):
                config = state.plan_config.model_copy(deep=True)
                wallet.limited_by(Tariff(compile_plan(state.plan, config), self._meter.options.lookup))
            if isinstance(edited, UserState) and name in ("plan_config", "current_usage"):
                _watch(getattr(state, name), self)
                for field in CurrentUsage.model_fields if name == "current_usage" else ():
                    _assign_usage(wallet, state.current_usage, field)


def _assign_usage(wallet: Wallet, usage: CurrentUsage, name: str) -> None:
    if name == "period_cost" and wallet.period_purse is not None:
        purse = wallet.period_purse
        purse.posted = usd_to_nusd(usage.period_cost) - purse.unsettled
    elif name == "session_cost" and wallet.session_purse is not None:
        purse = wallet.session_purse
        purse.posted = usd_to_nusd(usage.session_cost) - purse.unsettled
    elif name == "period_tokens_by_model" and wallet.period is not None:
        for model, tokens in usage.period_tokens_by_model.items():
            purse = wallet.model_purses(model)[0]
            purse.posted = tokens - purse.unsettled


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
            watched = _WatchedDict(value)
            watched.editor = editor
            watched.field = (model, name)
            model.__dict__[name] = watched
            _watch_values(watched.values(), editor)


def _watch_values(values: Iterable[Any], editor: _Editor) -> None:
    for value in values:
        if isinstance(value, PaygentModel):
            _watch(value, editor)


class _WatchedDict(dict[str, Any]):
    """A dictionary within a live state."""

    editor: _Editor | None = None
    field: tuple[PaygentModel, str] | None = None

    def _changed(self) -> None:
        if self.editor is not None and self.field is not None:
            _watch_values(self.values(), self.editor)
            self.editor(*self.field)

    def __reduce__(self) -> tuple[object, ...]:
        return dict, (dict(self),)

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return {
            key: value.model_copy(deep=True) if isinstance(value, PaygentModel) else value
            for key, value in self.items()
        }

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self._changed()

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        self._changed()

    def update(self, *args: Any, **kwargs: Any) -> None:
        super().update(*args, **kwargs)
        self._changed()

    def pop(self, *args: Any) -> Any:
        value = super().pop(*args)
        self._changed()
        return value

    def clear(self) -> None:
        super().clear()
        self._changed()

    def setdefault(self, key: str, default: Any = None) -> Any:
        value = super().setdefault(key, default)
        self._changed()
        return value
