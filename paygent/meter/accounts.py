"""Plans and users on behalf of the public object: loading, assigning, recording."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any, TypeVar

from paygent.core.events import Event
from paygent.core.models import BillingPeriod, PlanConfig
from paygent.core.pricing import usd_to_nusd
from paygent.core.usage import Usage
from paygent.core.windows import to_us
from paygent.ledger import Bucket, Ledger, LedgerError, PlanRow
from paygent.meter import settlement
from paygent.meter.call import Call, State
from paygent.meter.gate import PATIENCE_S
from paygent.meter.ids import id_for_key

if TYPE_CHECKING:
    from paygent.context import Payer
    from paygent.meter.meter import Meter
    from paygent.meter.wallet import Wallet

log = logging.getLogger("paygent")

T = TypeVar("T")


def ask(meter: Meter, question: Callable[[Ledger], T], otherwise: T) -> T:
    """Ask the ledger, for at most ``PATIENCE_S``; *otherwise* where it does not answer."""
    if meter.degraded:
        return otherwise
    return settled(meter, meter.exporter.call(question), otherwise)


def settled(meter: Meter, future: Future[T], otherwise: T) -> T:
    """Wait for *future* as for every answer of the ledger."""
    try:
        return future.result(timeout=PATIENCE_S)
    except FutureTimeoutError:
        meter.desk.trip(f"the ledger did not answer within {PATIENCE_S:g} s")
    except LedgerError as error:
        log.warning("%s", error)
    return otherwise


def loaded(meter: Meter, user_id: str, *, fresh: bool = False) -> Wallet:
    """The wallet of a user with its plan and windows known; no session begins by that."""
    wallet = meter.wallet(user_id)
    boot_s = meter.boot()
    ended = wallet.period is None or wallet.now_us(boot_s) >= wallet.period.end_us
    if (fresh or wallet.tariff is None or ended) and not meter.degraded:
        settled(meter, meter.exporter.refresh(wallet), None)
    elif boot_s - wallet.answered_s > 1.0:
        wallet.stale = True
    if wallet.tariff is None:
        with wallet.lock:
            meter.gate.open_alone(wallet, boot_s)
    return wallet


def totals(meter: Meter, user_id: str) -> dict[Bucket, int] | None:
    """Everything posted for a user, or ``None`` while the ledger is away."""
    return ask(meter, lambda ledger: ledger.totals(user_id), None)


def put_plan(meter: Meter, name: str, config: PlanConfig) -> None:
    """Register a plan; it binds the next call of each of its users."""
    text = config.model_dump_json()
    meter.plans[name] = config.model_copy(deep=True)
    meter.put(lambda ledger: ledger.put_plan(name, text))
    for wallet in tuple(meter.wallets.values()):
        with wallet.lock:
            wallet.ready_until_s, wallet.refused = 0.0, None


def put_account(
    meter: Meter, user_id: str, changes: Mapping[str, Any], config: PlanConfig | None = None
) -> Wallet:
    """Change what the ledger knows of a user, then load him; usage is never touched."""
    came_through = True
    if changes:
        came_through = meter.put(lambda ledger: ledger.put_account(user_id, changes))
    wallet = meter.wallet(user_id)
    with wallet.lock:
        wallet.ready_until_s, wallet.refused, wallet.moved_to, wallet.override = 0.0, None, None, None
    loaded(meter, user_id, fresh=came_through)
    if not came_through and (config or meter.plans.get(changes.get("plan") or "")):
        known = config or meter.plans[changes["plan"]]
        with wallet.lock:
            row = PlanRow(changes.get("plan") or "default", "alone", known.model_dump_json())
            wallet.limited_by(meter.tariff(row))
    return wallet


def period_changes(period: BillingPeriod | None) -> dict[str, Any]:
    """The account fields of an assigned billing period; none leaves it as it is."""
    return {} if period is None else {"period": (to_us(period.start), to_us(period.end))}


def record(
    meter: Meter,
    payer: Payer,
    *,
    cost: float | None,
    model: str | None,
    input_tokens: int,
    output_tokens: int,
    description: str | None,
    idempotency_key: str | None,
) -> Event | None:
    """Post usage that no SDK call stands for; it is never gated."""
    call = Call(meter, payer, None, "manual", model, 0, None)
    call.forced, call.source = True, "manual"
    meter.gate.begin(call)
    if call.state is not State.HELD:
        return None
    event_id = id_for_key(call.user_id, idempotency_key) if idempotency_key is not None else None
    if event_id is not None and not meter.is_first(event_id):
        meter.void(call)
        return None
    return settlement.settle(
        meter,
        call,
        Usage(input_tokens, output_tokens),
        None,
        (),
        estimated=False,
        event_id=event_id,
        cost=None if cost is None else usd_to_nusd(cost),
        description=description,
    )


def checked_amounts(cost: object, input_tokens: object, output_tokens: object) -> None:
    """
    Check the amounts of a manual event.

    Raises:
        ValueError: Negative, NaN or infinite cost; negative or non-integer tokens.
    """
    if cost is not None:
        if (
            isinstance(cost, bool)
            or not isinstance(cost, (int, float))
            or not math.isfinite(cost)
            or cost < 0
        ):
            raise ValueError(f"cost must be a finite amount of US dollars, zero or more, not {cost!r}")
    for name, tokens in (("input_tokens", input_tokens), ("output_tokens", output_tokens)):
        if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 0:
            raise ValueError(f"{name} must be a whole number, zero or more, not {tokens!r}")
