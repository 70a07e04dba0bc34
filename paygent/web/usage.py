"""What a user may see of his own plan: the answer of ``GET …/paygent/me``, and the headers of a response."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from paygent._shelter import Sheltered
from paygent.client import Paygent
from paygent.core.balance import UNLIMITED
from paygent.core.errors import Refusal
from paygent.core.models import INFINITY, GuardResult
from paygent.core.plan import MODEL_LIMIT, NUSD_PER_USD, SESSION_SPEND, TOTAL_SPEND
from paygent.core.windows import from_us
from paygent.meter import accounts, advice
from paygent.meter.purse import Purse
from paygent.meter.refusals import CODES
from paygent.meter.wallet import Wallet
from paygent.web.request import current_slot
from paygent.web.wording import amount, label, utc


@dataclass(frozen=True, slots=True)
class Standing:
    """
    Where a user stands in his billing period.

    Amounts are nano-dollars; a limit of ``None`` is none. ``state`` is ``ok``, ``soft_gate``, ``hard_gate``
    or ``disabled``; ``usage_pct`` is the share used (1.0: all) of the limit that is nearest to its end.
    """

    plan: str
    state: str
    usage_pct: float
    used_nusd: int
    limit_nusd: int | None
    resets_at: datetime | None
    session_limit_nusd: int = UNLIMITED
    session_resets_at: datetime | None = None
    period_left_usd: float = INFINITY
    session_left_usd: float = INFINITY
    has_plan: bool = True


def standing(pg: Paygent, user_id: str, *, fresh: bool = False) -> Standing | None:
    """
    Say where a user stands; ``None`` where no ledger has spoken of him yet, and after a fault of ours.

    Args:
        fresh: Ask the ledger first, for at most 250 ms, or 2 s where it is only busy. Else it is what this
            process knows, at once.
    """
    meter = pg._meter  # noqa: SLF001  # the engine behind the public object
    with Sheltered(meter, "reading where a user stands"):
        wallet = accounts.loaded(meter, user_id, fresh=True) if fresh else meter.wallets.get(user_id)
        if wallet is not None:
            with wallet.lock:
                return _standing(wallet, wallet.now_us(meter.boot()))
    return None


def _standing(wallet: Wallet, now_us: int) -> Standing | None:
    tariff, period, session = wallet.tariff, wallet.period_purse, wallet.session_purse
    if tariff is None or period is None or not wallet.answered_s:
        return None
    guard = advice.guard(wallet, None, now_us, blocks_unpriced=False)
    left = advice.budget(wallet, now_us)
    is_enabled = wallet.account is None or wallet.account.sdk_enabled
    return Standing(
        plan=tariff.plan.name,
        state=guard.status if is_enabled else "disabled",
        usage_pct=guard.usage_pct,
        used_nusd=period.used,
        limit_nusd=period.cap if period.finite else None,
        resets_at=_end(period),
        session_limit_nusd=tariff.plan.session.cap,
        session_resets_at=_end(session),
        period_left_usd=left.period_spend_remaining,
        session_left_usd=left.session_spend_remaining,
        has_plan=not tariff.blocks_all,
    )


def _end(purse: Purse | None) -> datetime | None:
    return from_us(purse.window.end_us) if purse is not None and purse.window.end_us else None


def hand_over_plan(pg: Paygent, user_id: str) -> None:
    """
    Put the running request's user on the plan that ``get_plan`` names for him; may wait for the ledger.

    Before whatever judges or shows him: else he is refused by the plan before, and never gets to the call
    that would have moved him.
    """
    slot = current_slot()
    if slot is None or slot.user_id != user_id or slot.plan is None:
        return
    meter = pg._meter  # noqa: SLF001  # the engine behind the public object
    with Sheltered(meter, "putting a user on his plan"):
        accounts.hand_over(meter, user_id, slot.plan)


def me(pg: Paygent, user_id: str, *, expose_amounts: bool = True) -> dict[str, Any] | None:
    """
    Answer ``GET …/paygent/me`` for the signed-in user *user_id*; may wait for the ledger.

    Returns:
        ``plan`` {name, label}, ``used``, ``limit``, ``remaining`` (decimal text in US dollars, ``None`` where
        there is no limit), ``percent`` (of the limit, a number), ``resets_at`` (ISO 8601 in UTC), ``state``
        (``ok``, ``soft_gate``, ``hard_gate`` or ``disabled``). ``None`` after a fault of ours: answer 503.
    """
    hand_over_plan(pg, user_id)
    found = standing(pg, user_id, fresh=True)
    if found is None:
        return None
    used, limit = found.used_nusd, found.limit_nusd
    shown = expose_amounts and limit is not None
    return {
        "plan": {"name": found.plan, "label": label(found.plan)},
        "used": _usd(used) if expose_amounts else None,
        "limit": _usd(limit) if shown and limit is not None else None,
        "remaining": _usd(max(0, limit - used)) if shown and limit is not None else None,
        "percent": None if limit is None else _percent(used, limit),
        "resets_at": utc(found.resets_at),
        "state": found.state,
    }


def usage_headers(pg: Paygent, user_id: str, *, expose_amounts: bool = True) -> dict[str, str]:
    """
    Return the ``Paygent-…`` headers of a response to *user_id*, as this process knows him; it never waits.

    ``Paygent-Plan``; ``Paygent-Used``, ``Paygent-Limit``, ``Paygent-Remaining`` (US dollars);
    ``Paygent-Reset`` (ISO 8601 in UTC); ``Paygent-Warning`` (the percentage used, from the soft mark on).
    What does not apply is left out; empty after a fault of ours.
    """
    found = standing(pg, user_id)
    if found is None:
        return {}
    headers = {"Paygent-Plan": _header(found.plan), "Paygent-Reset": utc(found.resets_at)}
    if expose_amounts:
        headers["Paygent-Used"] = _usd(found.used_nusd)
        if found.limit_nusd is not None:
            headers["Paygent-Limit"] = _usd(found.limit_nusd)
            headers["Paygent-Remaining"] = _usd(max(0, found.limit_nusd - found.used_nusd))
    if found.state in ("soft_gate", "hard_gate"):
        headers["Paygent-Warning"] = f"{min(found.usage_pct, 9.99) * 100:.0f}"
    return {name: value for name, value in headers.items() if value is not None}


def refusal_of(
    pg: Paygent, user_id: str, model: str | None, result: GuardResult, usd: float, *, own_session: bool
) -> Refusal | None:
    """
    What to refuse a request with that needs *usd* and for which the gate said *result*; None: nothing.

    What is known is the ledger's session of the user: a request with its *own_session* is not judged by that.
    """
    found = standing(pg, user_id)
    if own_session:
        found = found and replace(found, session_left_usd=INFINITY)
        result = GuardResult() if result.gate_reason == SESSION_SPEND else result
    if result.status != "hard_gate":
        if found is None or usd <= min(found.period_left_usd, found.session_left_usd):
            return None
        result = _too_little(found, usd)
    reason = result.gate_reason or TOTAL_SPEND
    code, resets_at = CODES.get(reason, "model_tokens"), found.resets_at if found else None
    if reason.startswith(MODEL_LIMIT) and not result.limit_value:
        code, resets_at = "model_not_in_plan", None
    elif reason == SESSION_SPEND:
        resets_at = found.session_resets_at if found else None
    if found is not None and not found.has_plan:
        code, resets_at = "no_plan", None
    return Refusal(
        code,
        result,
        user_id=user_id,
        plan=found.plan if found else None,
        model=model,
        unit="tokens" if reason.startswith(MODEL_LIMIT) else "usd",
        limit=result.limit_value,
        used=result.current_value,
        resets_at=resets_at,
    )


def _too_little(found: Standing, usd: float) -> GuardResult:
    """The closed gate of a request that needs more than is left."""
    is_session = found.session_left_usd < found.period_left_usd
    limit_nusd = found.session_limit_nusd if is_session else found.limit_nusd or 0
    limit, left = limit_nusd / NUSD_PER_USD, min(found.session_left_usd, found.period_left_usd)
    return GuardResult(
        status="hard_gate",
        gate_reason=SESSION_SPEND if is_session else TOTAL_SPEND,
        usage_pct=1 - left / limit if limit else 1.0,
        current_value=limit - left,
        limit_value=limit,
        message=f"This request asks for ${usd:g}, and ${left:g} is left.",
    )


def _percent(used: int, limit: int) -> float:
    return round(used / limit * 100, 1) if limit else 100.0


def _usd(nusd: int) -> str:
    return amount(nusd / NUSD_PER_USD, "usd")


def _header(text: str) -> str:
    """*text* as a header can hold it."""
    return "".join(c if " " <= c <= "~" else "?" for c in text)
